"""Model files: a revision pins their bytes, and publishing tries the models out."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.items import plain
from kirana.errors import CatalogError, ConfigurationError, Conflict, Unknown
from kirana.models.copies import ModelCopies
from kirana.models.files import ModelFiles
from kirana.models.loaded import LoadedModels
from kirana.models.onnx import OnnxModel
from kirana.models.runner import MATRIX
from kirana.revision import Revision
from kirana.serving.checks import catalog_checks
from tests.support import SHOP, SHOP_WEIGHTS, nth, write_linear_model, write_shop

ROW = np.ones((1, 7), dtype=np.float32)
KEPT = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop")


def backend(folder: Path) -> DirectoryCatalog:
    """Open the catalog anew, as another process does."""
    return DirectoryCatalog(
        folder, catalog_checks(ModelFiles(f"file://{folder}/models")), kept=KEPT
    )


def overwrite(folder: Path, weight: float) -> None:
    """Overwrite the file of the click model with one whose first weight is `weight`."""
    path = folder / "models" / "click" / "1" / "model.onnx"
    write_linear_model(path, [weight, *SHOP_WEIGHTS["click"][1:]], "p_click")


def change_catalog(folder: Path, keep: int) -> None:
    """Change an event type of the catalog, but no model."""
    (folder / "shop.yaml").write_text(SHOP.replace("keep: 50", f"keep: {keep}"))


def score(folder: Path, revision: Revision) -> float:
    """Load the click model of a revision; return its score for `ROW`."""
    model = backend(folder).load(revision).models["click_model"]
    loaded = LoadedModels(ModelCopies(folder / "models")).load(model)
    return float(loaded.model.run({MATRIX: ROW}, ["p_click"])["p_click"][0])


def copies_of(folder: Path) -> set[str]:
    """Return the digests of all copies below the model root."""
    return {copy.name for copy in (folder / "models" / ".kirana").iterdir() if len(copy.name) == 64}


def test_a_published_model_has_the_digest_of_its_file(folder: Path) -> None:
    published = backend(folder).publish()
    model = backend(folder).load(published.revision).models["click_model"]
    file = folder / "models" / model.path
    assert model.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert plain(model)["sha256"] == model.sha256
    assert model.sha256 in copies_of(folder)


def test_an_overwritten_file_has_no_effect_until_the_next_publish(folder: Path) -> None:
    overwrite(folder, 1.0)
    first = backend(folder).publish().revision
    before = score(folder, first)
    overwrite(folder, 5.0)
    assert score(folder, first) == before
    again = backend(folder).publish()
    assert (again.changed, again.checked.changed_models) == (True, ("click_model",))
    assert backend(folder).history(1)[0].put == ["model click_model"]
    assert score(folder, again.revision) == before + 4
    assert score(folder, first) == before


def test_a_change_of_another_object_publishes_no_new_model_bytes(folder: Path) -> None:
    overwrite(folder, 1.0)
    before = score(folder, backend(folder).publish().revision)
    overwrite(folder, 5.0)
    click = {"kind": "event_type", "name": "click", "keep": 7}
    published = backend(folder).publish_change(Change({"object": click}), None)
    assert score(folder, published.revision) == before


def test_publishing_an_older_model_object_restores_its_bytes(folder: Path) -> None:
    overwrite(folder, 1.0)
    first = backend(folder).publish().revision
    overwrite(folder, 5.0)
    backend(folder).publish()
    old = plain(backend(folder).load(first).models["click_model"])
    published = backend(folder).publish_change(Change({"object": old}), None)
    assert score(folder, published.revision) == score(folder, first)


def test_a_digest_without_a_copy_is_refused(folder: Path) -> None:
    backend(folder).publish()
    model = {"kind": "model", "name": "click_model", "path": "click/1/model.onnx"}
    change = Change({"object": {**model, "sha256": "ab" * 32}})
    with pytest.raises(CatalogError, match="there is no copy of abab") as caught:
        backend(folder).publish_change(change, None)
    assert caught.value.problems[0].path == "sha256"


@pytest.mark.parametrize("digest", ["", "AB" * 32, "ab", "zz" * 32])
def test_an_invalid_digest_is_refused(folder: Path, digest: str) -> None:
    backend(folder).publish()
    model = {"kind": "model", "name": "m", "path": "click/1/model.onnx", "sha256": digest}
    with pytest.raises(CatalogError, match="64 hexadecimal digits"):
        backend(folder).publish_change(Change({"object": model}), None)


def test_a_copy_is_deleted_with_the_last_revision_that_pins_it(folder: Path) -> None:
    overwrite(folder, 1.0)
    first = backend(folder).publish().revision
    dropped = str(backend(folder).load(first).models["click_model"].sha256)
    kept = str(backend(folder).load(first).models["order_model"].sha256)
    overwrite(folder, 5.0)
    for keep in range(10, 10 + KEPT - 1):
        change_catalog(folder, keep)
        backend(folder).publish()
        assert dropped in copies_of(folder)
    change_catalog(folder, 99)
    newest = backend(folder).publish().revision
    assert dropped not in copies_of(folder)
    assert kept in copies_of(folder)
    assert score(folder, newest)
    numbers = {revision.name for revision in (folder / ".kirana" / "revisions").iterdir()}
    assert numbers == {str(newest.number - i) for i in range(KEPT)}


def test_copies_that_another_catalog_pins_are_kept(folder: Path, tmp_path: Path) -> None:
    other = write_shop(tmp_path / "other")
    files = ModelFiles(f"file://{folder}/models")
    shared = DirectoryCatalog(other, catalog_checks(files), kept=KEPT).publish().revision
    backend(folder).publish()
    overwrite(folder, 5.0)
    for keep in range(10, 11 + KEPT):
        change_catalog(folder, keep)
        backend(folder).publish()
    model = DirectoryCatalog(other, catalog_checks()).load(shared).models["click_model"]
    assert LoadedModels(ModelCopies(folder / "models")).load(model)


def test_models_may_be_in_the_folder_of_the_catalog(folder: Path) -> None:
    text = SHOP.replace("path: ", "path: models/")
    (folder / "shop.yaml").write_text(text)
    revisions: list[Revision] = []

    def publish() -> None:
        checks = catalog_checks(ModelFiles(f"file://{folder}"))
        revisions.append(DirectoryCatalog(folder, checks).publish().revision)

    # The test must fail, not hang, if the publish waits for its own lock.
    publishing = threading.Thread(target=publish, daemon=True)
    publishing.start()
    publishing.join(30)
    assert [revision.number for revision in revisions] == [1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("changed", "'click_model': its copy .* was changed"),
        ("missing", "the copy .* of model 'click_model' is missing: restore it"),
    ],
)
def test_a_changed_or_missing_copy_is_never_loaded(folder: Path, damage: str, message: str) -> None:
    revision = backend(folder).publish().revision
    model = backend(folder).load(revision).models["click_model"]
    copy = folder / "models" / ".kirana" / str(model.sha256)
    copy.chmod(0o644)
    if damage == "missing":
        copy.unlink()
    else:
        write_linear_model(copy, [9.0] * 7, "p_click")
    with pytest.raises(ConfigurationError, match=message):
        LoadedModels(ModelCopies(folder / "models")).load(model)


def test_a_file_that_changes_during_a_publish_is_refused(folder: Path) -> None:
    files = ModelFiles(f"file://{folder}/models")
    catalog = DirectoryCatalog(folder, catalog_checks(files))
    checked = catalog.check()
    overwrite(folder, 5.0)
    with pytest.raises(Conflict, match="changed during the publish"):
        files.pin("shop", 1, checked.catalog.models.values())
    click = checked.catalog.models["click_model"].sha256
    assert click not in copies_of(folder)


def test_a_revision_without_digests_must_be_published_again(folder: Path) -> None:
    revision = DirectoryCatalog(folder, catalog_checks()).publish().revision
    model = DirectoryCatalog(folder, catalog_checks()).load(revision).models["click_model"]
    with pytest.raises(ConfigurationError, match="run 'kirana apply' again"):
        LoadedModels(ModelCopies(folder / "models")).load(model)


# models with external data


def split(path: Path, location: str) -> Path:
    """Move the weights of a model into a file next to it; return the path of that file."""
    model = onnx.load(path)
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=location,
        size_threshold=0,
    )
    return path.parent / location


def test_a_model_with_external_data_is_pinned_with_all_its_files(folder: Path) -> None:
    overwrite(folder, 1.0)
    expected = score(folder, backend(folder).publish().revision)
    path = folder / "models" / "click" / "1" / "model.onnx"
    weights = split(path, "weights.bin")
    first = backend(folder).publish().revision
    model = backend(folder).load(first).models["click_model"]
    copy = folder / "models" / ".kirana" / str(model.sha256)
    assert {file.name for file in copy.iterdir()} == {"model.onnx", "weights.bin"}
    lines = "".join(
        f"{hashlib.sha256((copy / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("model.onnx", "weights.bin")
    )
    assert model.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert score(folder, first) == expected
    # Only the file with the weights is overwritten.
    weights.write_bytes(np.array([5.0, *SHOP_WEIGHTS["click"][1:]], dtype=np.float32).tobytes())
    assert score(folder, first) == expected
    again = backend(folder).publish()
    assert again.checked.changed_models == ("click_model",)
    assert score(folder, again.revision) == expected + 4


def test_the_location_of_external_data_may_start_with_a_dot(folder: Path) -> None:
    path = folder / "models" / "click" / "1" / "model.onnx"
    split(path, "weights.bin")
    model = onnx.load(path, load_external_data=False)
    data = model.graph.initializer[0].external_data
    (location_entry,) = (entry for entry in data if entry.key == "location")
    location_entry.value = "./weights.bin"
    path.write_bytes(model.SerializeToString())
    assert score(folder, backend(folder).publish().revision)


@pytest.mark.parametrize("location", ["../outside.bin", "gone.bin"])
def test_external_data_that_is_missing_or_outside_the_folder_is_refused(
    folder: Path, location: str
) -> None:
    path = folder / "models" / "click" / "1" / "model.onnx"
    split(path, "weights.bin")
    model = onnx.load(path, load_external_data=False)
    data = model.graph.initializer[0].external_data
    (location_entry,) = (entry for entry in data if entry.key == "location")
    location_entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CatalogError, match="external data"):
        backend(folder).check()


# trials


def write_model_with_one_output_row(path: Path) -> None:
    """Write a model that declares an output row per input row, but always returns one row."""
    write_linear_model(path, [1.0] * 7, "p_click")
    model = onnx.load(path)
    model.graph.node[0].output[0] = "each"
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["each"], ["p_click"]))
    path.write_bytes(model.SerializeToString())


def test_a_model_that_returns_a_wrong_number_of_rows_is_refused(folder: Path) -> None:
    write_model_with_one_output_row(folder / "models" / "click" / "1" / "model.onnx")
    with pytest.raises(CatalogError) as caught:
        backend(folder).check()
    (problem,) = caught.value.problems
    assert problem.path == "models[0]"
    assert "model 'click_model': its output 'p_click' must have one value" in problem.message
    assert "for a matrix of 2 rows" in problem.message


def test_a_failure_for_a_one_row_matrix_does_not_hide_a_wrong_number_of_rows(folder: Path) -> None:
    """The model reads the second row.

    It fails for a matrix of one row, and returns one row for a matrix of two.
    """
    path = folder / "models" / "click" / "1" / "model.onnx"
    make, info, types = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [make("Gather", ["x", "second"], ["row"], axis=0), make("ReduceSum", ["row"], ["p_click"])],
        "second",
        [info("x", types.FLOAT, ["n", 7])],
        [info("p_click", types.FLOAT, ["n", 1])],
        [onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), "second")],
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CatalogError, match="its output 'p_click' must have one value"):
        backend(folder).check()


def test_a_model_that_no_inferflow_calls_is_tried_out_too(folder: Path) -> None:
    write_model_with_one_output_row(folder / "models" / "liar.onnx")
    text = f"{SHOP}---\nkind: model\nname: liar\npath: liar.onnx\n"
    (folder / "shop.yaml").write_text(text)
    with pytest.raises(CatalogError, match="model 'liar': its output 'p_click' must have one"):
        backend(folder).check()


def write_lookup_model(path: Path, table_size: int) -> None:
    """Write a model that looks up a row's clicks in a table of `table_size` entries.

    The model fails for a row with `table_size` clicks or more.
    """
    make, value = onnx.helper.make_node, onnx.numpy_helper.from_array
    graph = onnx.helper.make_graph(
        [
            make("Gather", ["x", "column"], ["clicks"], axis=1),
            make("Cast", ["clicks"], ["at"], to=onnx.TensorProto.INT64),
            make("Gather", ["table", "at"], ["p_click"]),
        ],
        "lookup",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 7])],
        [onnx.helper.make_tensor_value_info("p_click", onnx.TensorProto.FLOAT, ["n", 1])],
        [
            value(np.array([3], dtype=np.int64), "column"),
            value(np.arange(table_size, dtype=np.float32), "table"),
        ],
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    path.write_bytes(model.SerializeToString())


def test_a_model_that_fails_on_the_default_values_causes_a_warning(folder: Path) -> None:
    write_lookup_model(folder / "models" / "click" / "1" / "model.onnx", table_size=5)
    assert backend(folder).check().warnings == ()
    default = SHOP.replace(
        "name: clicks, dtype: int32, default: 0", "name: clicks, dtype: int32, default: 9"
    )
    (folder / "shop.yaml").write_text(default)
    (warning,) = backend(folder).check().warnings
    assert warning.path == "models[0]"
    assert "model 'click_model': it can't score this matrix of 1 rows" in warning.message
    assert backend(folder).publish().changed


def write_endless_model(path: Path) -> None:
    """Write a model whose loop has too many iterations to end."""
    make, value = onnx.helper.make_node, onnx.numpy_helper.from_array
    info, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    body = onnx.helper.make_graph(
        [make("Identity", ["going"], ["still"]), make("Add", ["sum", "one"], ["more"])],
        "body",
        [
            info("turn", types.INT64, []),
            info("going", types.BOOL, []),
            info("sum", types.FLOAT, [1]),
        ],
        [info("still", types.BOOL, []), info("more", types.FLOAT, [1])],
    )
    graph = onnx.helper.make_graph(
        [
            make("Loop", ["turns", "yes", "one"], ["count"], body=body),
            make("MatMul", ["x", "w"], ["each"]),
            make("Add", ["each", "count"], ["p_click"]),
        ],
        "endless",
        [info("x", types.FLOAT, ["n", 7])],
        [info("p_click", types.FLOAT, ["n", 1])],
        [
            value(np.array(1 << 60, dtype=np.int64), "turns"),
            value(np.array(True), "yes"),
            value(np.array([1], dtype=np.float32), "one"),
            value(np.ones((7, 1), dtype=np.float32), "w"),
        ],
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    path.write_bytes(model.SerializeToString())


def test_a_trial_that_takes_too_long_is_reported(folder: Path) -> None:
    from kirana.models.trial import try_out

    path = folder / "models" / "endless.onnx"
    write_endless_model(path)
    (finding,) = try_out(OnnxModel("endless", path), ROW[0], ["p_click"], limit_s=0.2)
    assert not finding.wrong
    assert "in 0.2 s" in finding.message


def test_a_revision_of_another_catalog_is_unknown(folder: Path) -> None:
    published = backend(folder).publish().revision
    assert nth(backend(folder), 1) == published
    with pytest.raises(Unknown, match="1 of catalog another"):
        backend(folder).load(Revision("another", 1))


def test_a_publish_makes_missing_copies_again(folder: Path) -> None:
    revision = backend(folder).publish().revision
    before = score(folder, revision)
    shutil.rmtree(folder / "models" / ".kirana")
    with pytest.raises(ConfigurationError, match="run 'kirana apply' to publish"):
        score(folder, revision)
    assert not backend(folder).publish().changed
    assert score(folder, revision) == before


def test_a_digest_is_refused_with_another_path(folder: Path) -> None:
    """The digest comes from the object as it was read, and only its path was edited."""
    first = backend(folder).publish().revision
    model = plain(backend(folder).load(first).models["click_model"])
    write_linear_model(folder / "models" / "click" / "2" / "model.onnx", [1.0] * 7, "p_click")
    moved = {**model, "path": "click/2/model.onnx"}
    with pytest.raises(CatalogError, match="leave it out to publish 'click/2") as caught:
        backend(folder).publish_change(Change({"object": moved}), None)
    assert caught.value.problems[0].path == "sha256"
    del moved["sha256"]
    assert backend(folder).publish_change(Change({"object": moved}), None).changed


def test_a_change_does_not_start_a_new_catalog_after_a_loss(folder: Path) -> None:
    backend(folder).publish()
    (folder / ".kirana" / "CURRENT").unlink()
    brand = {"kind": "entity", "name": "brand", "keys": [{"name": "brand_id"}]}
    with pytest.raises(Conflict, match="run 'kirana apply'"):
        backend(folder).publish_change(Change({"object": brand}), None)
    assert backend(folder).publish().changed


def test_a_check_without_model_files_reports_no_new_bytes(folder: Path) -> None:
    backend(folder).publish()
    assert DirectoryCatalog(folder, catalog_checks()).check().changed_models == ()
