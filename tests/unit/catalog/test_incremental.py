"""A check of only changed objects and their dependents accepts and refuses as a full check does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import CatalogError, KiranaError
from kirana.serving.checks import catalog_checks
from tests.support import write_shop

Objects = dict[tuple[str, str], dict[str, Any]]


def shop_objects(folder: Path) -> Objects:
    """Return the objects in a folder, by kind and name."""
    text = "\n---\n".join(file.read_text() for file in sorted(folder.glob("*.yaml")))
    return {
        (document["kind"], document["name"]): document
        for document in yaml.safe_load_all(text)
        if document
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("incremental"))


def write(folder: Path, objects: Objects) -> None:
    """Write all objects to one file, which replaces every YAML file of the folder."""
    for file in folder.glob("*.yaml"):
        file.unlink()
    text = "---\n".join(yaml.safe_dump(record, sort_keys=False) for record in objects.values())
    (folder / "all.yaml").write_text(text)


def edited(objects: Objects, edits: list[tuple[int, str]]) -> Objects:
    """Return a copy of the objects after `edits`, pairs of a position and an action.

    Some actions leave the catalog valid. Others break an object or the objects that refer to it.
    """
    copies = json.loads(json.dumps(list(objects.items())))
    result: Objects = {tuple(key): record for key, record in copies}  # type: ignore[misc]
    for position, action in edits:
        keys = sorted(result)
        kind, name = key = keys[position % len(keys)]
        record = result[key]
        if action == "remove":
            del result[key]
        elif action == "rename":
            result[kind, f"{name}x"] = {**record, "name": f"{name}x"}
            del result[key]
        elif kind == "feature_group" and action == "drop":
            record["features"] = record["features"][1:] or record["features"]
        elif kind == "feature_group":
            record["ttl"] = "3d" if action == "touch" else "9d"
        elif kind == "entity" and action == "drop":
            record["keys"] = [{"name": "other"}]
        elif kind == "inferflow":
            record["score"] = "1 + 1" if action == "touch" else "nothing"
        elif kind == "flow" and action == "touch":
            # This becomes invalid if an edit names a key 'other', because ids are text.
            record["context"] = {"other": "number"}
        elif kind == "flow" and action == "drop":
            record["nodes"] = dict(list(record["nodes"].items())[1:])
        elif kind == "event_type":
            record["keep"] = 7 if action == "touch" else 8
    return result


EDITS = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from(["touch", "touch", "drop", "rename", "remove"])),
    min_size=1,
    max_size=3,
)


def outcome(call: Any) -> set[str] | None:
    """Return the problems for which `call` is refused, or None if it succeeds."""
    try:
        call()
    except CatalogError as error:
        return {str(problem) for problem in error.problems}
    return None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(EDITS, min_size=1, max_size=4))
def test_publishing_accepts_and_refuses_the_same_as_a_full_check(
    shop: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[int, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    shutil.copytree(shop, folder)
    objects = shop_objects(folder)
    write(folder, objects)
    DirectoryCatalog(folder, catalog_checks()).publish()
    follower = DirectoryCatalog(folder, catalog_checks())
    follower.load(follower.current())
    for edits in steps:
        changed = edited(objects, edits)
        write(folder, changed)
        if not changed:
            break
        # Each call gets its own `DirectoryCatalog`, as a separate command would.
        full = outcome(DirectoryCatalog(folder, catalog_checks()).check)
        incremental = outcome(DirectoryCatalog(folder, catalog_checks()).publish)
        assert (incremental is None) == (full is None), (incremental, full)
        if incremental is not None:
            assert incremental <= (full or set())
            continue
        objects = changed
        live = follower.current()
        followed, loaded = (
            follower.load(live),
            DirectoryCatalog(folder, catalog_checks()).load(live),
        )
        assert followed.items == loaded.items
        assert dict(followed.versions) == dict(loaded.versions)
        assert dict(followed.storage) == dict(loaded.storage)
        assert followed.uses == loaded.uses
        assert dict(followed.groups) == dict(loaded.groups)
        assert followed.id_names == loaded.id_names


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_a_change_is_accepted_or_refused_like_the_same_edit_of_files(
    shop: Path, tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    shutil.copytree(shop, folder)
    catalog = DirectoryCatalog(folder, catalog_checks())
    catalog.publish()
    objects = shop_objects(folder)
    changed = edited(objects, edits)
    put = {
        f"objects[{i}]": record
        for i, (key, record) in enumerate(changed.items())
        if objects.get(key) != record
    }
    deleted = {f"delete[{i}]": key for i, key in enumerate(objects.keys() - changed.keys())}
    try:
        catalog.publish_change(Change(put, deleted), None)
        refused = False
    except KiranaError:
        refused = True
    write(folder, changed)
    assert refused == (outcome(DirectoryCatalog(folder, catalog_checks()).check) is not None)


def test_unchanged_objects_are_neither_parsed_nor_compiled_again(
    shop: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    catalog = DirectoryCatalog(folder, catalog_checks())
    catalog.publish()
    before = catalog.load(catalog.current())
    put = {"object": {"kind": "event_type", "name": "click", "keep": 11}}
    catalog.publish_change(Change(put), None)
    after = catalog.load(catalog.current())
    assert after.event_types["click"].keep == 11
    for kind, items in after.items.items():
        for name, item in items.items():
            assert (item is before.item((kind, name))) == ((kind, name) != ("event_type", "click"))
    assert after.compiled("inferflow", "ranker") is before.compiled("inferflow", "ranker")
    # The flow reads this event type.
    assert after.compiled("flow", "for_you") is not before.compiled("flow", "for_you")


def test_a_revision_checked_by_other_code_is_not_trusted(shop: Path, tmp_path: Path) -> None:
    """Objects that other code accepted may not be valid for this code."""
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    DirectoryCatalog(folder, catalog_checks()).publish()
    uses = folder / ".kirana/revisions/1/uses.json"
    record = json.loads(uses.read_text())
    assert record["uses"]
    uses.write_text(json.dumps({**record, "code": "0"}))
    again = DirectoryCatalog(folder, catalog_checks())
    live, trusted = again._live_or_none()
    assert live is not None
    assert not trusted
    assert not again.publish().changed


IMPORT = """
import sys
import kirana.catalog, kirana.catalog.directory, kirana.catalog.zookeeper, kirana.catalog.revisions
print(sorted({name.partition(".")[0] for name in sys.modules} & {"onnxruntime", "redis", "ray"}))
ENGINES = ("kirana.flow", "kirana.inferflow", "kirana.models")
print(sorted(name for name in sys.modules if name.startswith(ENGINES)))
"""


def test_importing_the_catalog_imports_no_engine() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n[]\n"


def test_a_name_that_becomes_an_id_is_refused_in_flows_that_declare_it(
    shop: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    objects = shop_objects(folder)
    objects["flow", "for_you"]["context"] = {"other": "number"}
    write(folder, objects)
    DirectoryCatalog(folder, catalog_checks()).publish()
    objects["entity", "lonely"] = {"kind": "entity", "name": "lonely", "keys": [{"name": "other"}]}
    write(folder, objects)
    (problem,) = outcome(DirectoryCatalog(folder, catalog_checks()).publish) or ()
    assert "'other' is an id" in problem
