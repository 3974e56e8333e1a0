"""A revision means the bytes of its models: what is published is what every replica loads."""

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
from kirana.models.onnx import OnnxModel
from kirana.models.registry import LoadedModels
from kirana.models.runner import MATRIX
from kirana.revision import Revision
from kirana.serving.checks import checks_of
from tests.support import SHOP, SHOP_WEIGHTS, nth, write_linear_model, write_shop

ROW = np.ones((1, 7), dtype=np.float32)
KEPT = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop")


def backend(folder: Path) -> DirectoryCatalog:
    """Open the catalog as another process does."""
    return DirectoryCatalog(folder, checks_of(ModelFiles(f"file://{folder}/models")), kept=KEPT)


def overwrite(folder: Path, weight: float) -> None:
    """Give the click model other weights, in place."""
    path = folder / "models" / "click" / "1" / "model.onnx"
    write_linear_model(path, [weight, *SHOP_WEIGHTS["click"][1:]], "p_click")


def touch(folder: Path, keep: int) -> None:
    """Change something that has nothing to do with models."""
    (folder / "shop.yaml").write_text(SHOP.replace("keep: 50", f"keep: {keep}"))


def score(folder: Path, revision: Revision) -> float:
    """Return what the click model of a revision says, in a process that has just started."""
    model = backend(folder).load(revision).models["click_model"]
    loaded = LoadedModels(ModelCopies(folder / "models")).load(model)
    return float(loaded.run({MATRIX: ROW}, ["p_click"])["p_click"][0])


def copies_of(folder: Path) -> set[str]:
    return {each.name for each in (folder / "models" / ".kirana").iterdir() if len(each.name) == 64}


def test_a_published_model_shows_the_digest_of_its_file(folder: Path) -> None:
    published = backend(folder).publish()
    model = backend(folder).load(published.revision).models["click_model"]
    file = folder / "models" / model.path
    assert model.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert plain(model)["sha256"] == model.sha256
    assert model.sha256 in copies_of(folder)


def test_a_file_that_is_overwritten_changes_nothing_until_the_next_apply(folder: Path) -> None:
    overwrite(folder, 1.0)
    first = backend(folder).publish().revision
    before = score(folder, first)
    overwrite(folder, 5.0)
    assert score(folder, first) == before
    again = backend(folder).publish()
    assert (again.changed, again.checked.new_bytes) == (True, ("click_model",))
    assert backend(folder).history(1)[0].put == ["model click_model"]
    assert score(folder, again.revision) == before + 4
    assert score(folder, first) == before


def test_a_change_of_something_else_publishes_no_new_bytes(folder: Path) -> None:
    overwrite(folder, 1.0)
    before = score(folder, backend(folder).publish().revision)
    overwrite(folder, 5.0)
    click = {"kind": "event_type", "name": "click", "keep": 7}
    published = backend(folder).publish_change(Change({"object": click}), None)
    assert score(folder, published.revision) == before


def test_the_objects_of_an_older_revision_bring_its_bytes_back(folder: Path) -> None:
    overwrite(folder, 1.0)
    first = backend(folder).publish().revision
    overwrite(folder, 5.0)
    backend(folder).publish()
    old = plain(backend(folder).load(first).models["click_model"])
    published = backend(folder).publish_change(Change({"object": old}), None)
    assert score(folder, published.revision) == score(folder, first)


def test_a_digest_whose_copy_is_gone_is_refused(folder: Path) -> None:
    backend(folder).publish()
    model = {"kind": "model", "name": "click_model", "path": "click/1/model.onnx"}
    change = Change({"object": {**model, "sha256": "ab" * 32}})
    with pytest.raises(CatalogError, match="there is no copy of abab") as caught:
        backend(folder).publish_change(change, None)
    assert caught.value.problems[0].path == "sha256"


@pytest.mark.parametrize("digest", ["", "AB" * 32, "ab", "zz" * 32])
def test_what_is_no_digest_is_refused(folder: Path, digest: str) -> None:
    backend(folder).publish()
    model = {"kind": "model", "name": "m", "path": "click/1/model.onnx", "sha256": digest}
    with pytest.raises(CatalogError, match="64 hexadecimal digits"):
        backend(folder).publish_change(Change({"object": model}), None)


def test_copies_go_with_the_last_revision_that_names_them(folder: Path) -> None:
    overwrite(folder, 1.0)
    first = backend(folder).publish().revision
    lost = str(backend(folder).load(first).models["click_model"].sha256)
    kept = str(backend(folder).load(first).models["order_model"].sha256)
    overwrite(folder, 5.0)
    for keep in range(10, 10 + KEPT - 1):
        touch(folder, keep)
        backend(folder).publish()
        assert lost in copies_of(folder)
    touch(folder, 99)
    newest = backend(folder).publish().revision
    assert lost not in copies_of(folder)
    assert kept in copies_of(folder)
    assert score(folder, newest)
    numbers = {each.name for each in (folder / ".kirana" / "revisions").iterdir()}
    assert numbers == {str(newest.number - at) for at in range(KEPT)}


def test_copies_that_another_catalog_names_stay(folder: Path, tmp_path: Path) -> None:
    other = write_shop(tmp_path / "other")
    files = ModelFiles(f"file://{folder}/models")
    shared = DirectoryCatalog(other, checks_of(files), kept=KEPT).publish().revision
    backend(folder).publish()
    overwrite(folder, 5.0)
    for keep in range(10, 11 + KEPT):
        touch(folder, keep)
        backend(folder).publish()
    model = DirectoryCatalog(other, checks_of()).load(shared).models["click_model"]
    assert LoadedModels(ModelCopies(folder / "models")).load(model)


def test_models_may_lie_in_the_folder_of_the_catalog(folder: Path) -> None:
    text = SHOP.replace("path: ", "path: models/")
    (folder / "shop.yaml").write_text(text)
    revisions: list[Revision] = []

    def publish() -> None:
        checks = checks_of(ModelFiles(f"file://{folder}"))
        revisions.append(DirectoryCatalog(folder, checks).publish().revision)

    # a publish that waits for itself would never end
    publishing = threading.Thread(target=publish, daemon=True)
    publishing.start()
    publishing.join(30)
    assert [revision.number for revision in revisions] == [1]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_copy_that_is_not_what_it_was_is_never_loaded(folder: Path, damage: str) -> None:
    revision = backend(folder).publish().revision
    model = backend(folder).load(revision).models["click_model"]
    copy = folder / "models" / ".kirana" / str(model.sha256)
    copy.chmod(0o644)
    if damage == "gone":
        copy.unlink()
    else:
        write_linear_model(copy, [9.0] * 7, "p_click")
    with pytest.raises(ConfigurationError, match=f"'click_model': its copy .* (is|was) {damage}"):
        LoadedModels(ModelCopies(folder / "models")).load(model)


def test_a_file_that_changes_while_it_is_published_is_refused(folder: Path) -> None:
    files = ModelFiles(f"file://{folder}/models")
    catalog = DirectoryCatalog(folder, checks_of(files))
    checked = catalog.check()
    overwrite(folder, 5.0)
    with pytest.raises(Conflict, match="changed while it was published"):
        files.pin("somebody", 1, checked.catalog.models.values())
    click = checked.catalog.models["click_model"].sha256
    assert click not in copies_of(folder)


def test_a_catalog_of_a_time_without_digests_says_what_to_do(folder: Path) -> None:
    revision = DirectoryCatalog(folder, checks_of()).publish().revision
    model = DirectoryCatalog(folder, checks_of()).load(revision).models["click_model"]
    with pytest.raises(ConfigurationError, match="run 'kirana apply' again"):
        LoadedModels(ModelCopies(folder / "models")).load(model)


# models with external data


def split(path: Path, location: str) -> Path:
    """Move the weights of a model into a file beside it."""
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
    whole = score(folder, backend(folder).publish().revision)
    path = folder / "models" / "click" / "1" / "model.onnx"
    data = split(path, "weights.bin")
    first = backend(folder).publish().revision
    model = backend(folder).load(first).models["click_model"]
    copy = folder / "models" / ".kirana" / str(model.sha256)
    assert {each.name for each in copy.iterdir()} == {"model.onnx", "weights.bin"}
    lines = "".join(
        f"{hashlib.sha256((copy / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("model.onnx", "weights.bin")
    )
    assert model.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert score(folder, first) == whole
    # the data alone is overwritten
    data.write_bytes(np.array([5.0, *SHOP_WEIGHTS["click"][1:]], dtype=np.float32).tobytes())
    assert score(folder, first) == whole
    again = backend(folder).publish()
    assert again.checked.new_bytes == ("click_model",)
    assert score(folder, again.revision) == whole + 4


def test_external_data_may_be_named_with_a_dot(folder: Path) -> None:
    path = folder / "models" / "click" / "1" / "model.onnx"
    split(path, "weights.bin")
    model = onnx.load(path, load_external_data=False)
    (entry,) = (e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = "./weights.bin"
    path.write_bytes(model.SerializeToString())
    assert score(folder, backend(folder).publish().revision)


@pytest.mark.parametrize("location", ["../outside.bin", "gone.bin"])
def test_external_data_that_is_missing_or_elsewhere_is_refused(folder: Path, location: str) -> None:
    path = folder / "models" / "click" / "1" / "model.onnx"
    split(path, "weights.bin")
    model = onnx.load(path, load_external_data=False)
    (entry,) = (e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CatalogError, match="external data"):
        backend(folder).check()


# trials


def liar(path: Path) -> None:
    """Write a model that declares a row for each of its rows, and gives one for all."""
    write_linear_model(path, [1.0] * 7, "p_click")
    model = onnx.load(path)
    model.graph.node[0].output[0] = "each"
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["each"], ["p_click"]))
    path.write_bytes(model.SerializeToString())


def test_a_model_that_gives_another_number_of_rows_can_not_go_live(folder: Path) -> None:
    liar(folder / "models" / "click" / "1" / "model.onnx")
    with pytest.raises(CatalogError) as caught:
        backend(folder).check()
    (problem,) = caught.value.problems
    assert problem.path == "models[0]"
    assert "model 'click_model': its output 'p_click' has 1 rows" in problem.message
    assert "for a matrix of 2 rows" in problem.message


def test_an_error_on_one_row_does_not_hide_a_wrong_number_of_rows(folder: Path) -> None:
    """It takes the second row, which there is from two on, and gives one value for all."""
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
    with pytest.raises(CatalogError, match="its output 'p_click' has 1 rows"):
        backend(folder).check()


def test_a_model_that_nobody_calls_is_tried_out_too(folder: Path) -> None:
    liar(folder / "models" / "liar.onnx")
    text = f"{SHOP}---\nkind: model\nname: liar\npath: liar.onnx\n"
    (folder / "shop.yaml").write_text(text)
    with pytest.raises(CatalogError, match="model 'liar': its output 'p_click' has 1 rows"):
        backend(folder).check()


def looks_up(path: Path, rows: int) -> None:
    """Write a model that fails on a clicks feature of `rows` or more."""
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
            value(np.arange(rows, dtype=np.float32), "table"),
        ],
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    path.write_bytes(model.SerializeToString())


def test_a_model_that_fails_on_the_defaults_is_a_warning(folder: Path) -> None:
    looks_up(folder / "models" / "click" / "1" / "model.onnx", rows=5)
    assert backend(folder).check().warnings == ()
    default = SHOP.replace(
        "name: clicks, dtype: int32, default: 0", "name: clicks, dtype: int32, default: 9"
    )
    (folder / "shop.yaml").write_text(default)
    (warning,) = backend(folder).check().warnings
    assert warning.path == "models[0]"
    assert "model 'click_model': it can't score this matrix of 1 rows" in warning.message
    assert backend(folder).publish().changed


def endless(path: Path) -> None:
    """Write a model that counts to a number that it never reaches."""
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


def test_a_trial_that_does_not_end_is_left_and_told_of(folder: Path) -> None:
    from kirana.models.trial import try_out

    path = folder / "models" / "endless.onnx"
    endless(path)
    (finding,) = try_out(OnnxModel("endless", path), ROW[0], ["p_click"], limit_s=0.2)
    assert not finding.wrong
    assert "more than 0.2 s" in finding.message


def test_a_revision_of_another_history_is_not_this_one(folder: Path) -> None:
    published = backend(folder).publish().revision
    assert nth(backend(folder), 1) == published
    with pytest.raises(Unknown, match="1 of catalog another"):
        backend(folder).load(Revision("another", 1))


def test_copies_that_were_lost_are_made_again_by_the_next_apply(folder: Path) -> None:
    revision = backend(folder).publish().revision
    before = score(folder, revision)
    shutil.rmtree(folder / "models" / ".kirana")
    with pytest.raises(ConfigurationError, match="'kirana apply' makes it again"):
        score(folder, revision)
    assert not backend(folder).publish().changed
    assert score(folder, revision) == before


def test_a_digest_does_not_go_along_to_another_path(folder: Path) -> None:
    """As when somebody edits what GET gave."""
    first = backend(folder).publish().revision
    model = plain(backend(folder).load(first).models["click_model"])
    write_linear_model(folder / "models" / "click" / "2" / "model.onnx", [1.0] * 7, "p_click")
    moved = {**model, "path": "click/2/model.onnx"}
    with pytest.raises(CatalogError, match="leave it out to take the file click/2") as caught:
        backend(folder).publish_change(Change({"object": moved}), None)
    assert caught.value.problems[0].path == "sha256"
    del moved["sha256"]
    assert backend(folder).publish_change(Change({"object": moved}), None).changed


def test_a_catalog_that_is_lost_is_not_begun_anew_by_a_change(folder: Path) -> None:
    backend(folder).publish()
    (folder / ".kirana" / "CURRENT").unlink()
    brand = {"kind": "entity", "name": "brand", "keys": [{"name": "brand_id"}]}
    with pytest.raises(Conflict, match="run 'kirana apply'"):
        backend(folder).publish_change(Change({"object": brand}), None)
    assert backend(folder).publish().changed


def test_nothing_is_new_to_who_does_not_look_into_the_files(folder: Path) -> None:
    backend(folder).publish()
    assert DirectoryCatalog(folder, checks_of()).check().new_bytes == ()
