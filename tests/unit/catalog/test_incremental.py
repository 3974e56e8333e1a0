"""A change is checked with what refers to it: the outcome is that of checking everything."""

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
from kirana.serving.checks import checks_of
from tests.support import write_shop

Objects = dict[tuple[str, str], dict[str, Any]]


def shop_objects(folder: Path) -> Objects:
    text = "\n---\n".join(each.read_text() for each in sorted(folder.glob("*.yaml")))
    return {(each["kind"], each["name"]): each for each in yaml.safe_load_all(text) if each}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("incremental"))


def write(folder: Path, objects: Objects) -> None:
    for file in folder.glob("*.yaml"):
        file.unlink()
    text = "---\n".join(yaml.safe_dump(each, sort_keys=False) for each in objects.values())
    (folder / "all.yaml").write_text(text)


def edited(objects: Objects, edits: list[tuple[int, str]]) -> Objects:
    """Apply edits, each to one object: some leave it valid, some break it or what refers to it."""
    found = json.loads(json.dumps(list(objects.items())))
    made: Objects = {tuple(key): each for key, each in found}  # type: ignore[misc]
    for at, what in edits:
        keys = sorted(made)
        kind, name = key = keys[at % len(keys)]
        each = made[key]
        if what == "remove":
            del made[key]
        elif what == "rename":
            made[kind, f"{name}x"] = {**each, "name": f"{name}x"}
            del made[key]
        elif kind == "feature_group" and what == "drop":
            each["features"] = each["features"][1:] or each["features"]
        elif kind == "feature_group":
            each["ttl"] = "3d" if what == "touch" else "9d"
        elif kind == "entity" and what == "drop":
            each["keys"] = [{"name": "other"}]
        elif kind == "inferflow":
            each["score"] = "1 + 1" if what == "touch" else "nothing"
        elif kind == "flow" and what == "touch":
            # once a key of an entity is called so, this is no number any more
            each["context"] = {"other": "number"}
        elif kind == "flow" and what == "drop":
            each["nodes"] = dict(list(each["nodes"].items())[1:])
        elif kind == "event_type":
            each["keep"] = 7 if what == "touch" else 8
    return made


EDITS = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from(["touch", "touch", "drop", "rename", "remove"])),
    min_size=1,
    max_size=3,
)


def outcome(call: Any) -> set[str] | None:
    """Return what is wrong; None if nothing is."""
    try:
        call()
    except CatalogError as error:
        return {str(problem) for problem in error.problems}
    return None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(EDITS, min_size=1, max_size=4))
def test_publishing_refuses_and_takes_what_checking_everything_does(
    shop: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[int, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    shutil.copytree(shop, folder)
    objects = shop_objects(folder)
    write(folder, objects)
    DirectoryCatalog(folder, checks_of()).publish()
    follower = DirectoryCatalog(folder, checks_of())
    follower.load(follower.current())
    for edits in steps:
        changed = edited(objects, edits)
        write(folder, changed)
        if not changed:
            break
        # each in a catalog of its own, as commands in processes of their own would
        whole = outcome(DirectoryCatalog(folder, checks_of()).check)
        told = outcome(DirectoryCatalog(folder, checks_of()).publish)
        assert (told is None) == (whole is None), (told, whole)
        if told is not None:
            assert told <= (whole or set())
            continue
        objects = changed
        live = follower.current()
        followed, read = follower.load(live), DirectoryCatalog(folder, checks_of()).load(live)
        assert followed.items == read.items
        assert dict(followed.versions) == dict(read.versions)
        assert dict(followed.storage) == dict(read.storage)
        assert followed.uses == read.uses
        assert dict(followed.groups) == dict(read.groups)
        assert followed.id_names == read.id_names


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_a_change_over_http_is_refused_or_taken_as_the_files_would_be(
    shop: Path, tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    shutil.copytree(shop, folder)
    catalog = DirectoryCatalog(folder, checks_of())
    catalog.publish()
    objects = shop_objects(folder)
    changed = edited(objects, edits)
    put = {f"objects[{at}]": e for at, (k, e) in enumerate(changed.items()) if objects.get(k) != e}
    gone = {f"delete[{at}]": key for at, key in enumerate(objects.keys() - changed.keys())}
    try:
        catalog.publish_change(Change(put, gone), None)
        refused = False
    except KiranaError:
        refused = True
    write(folder, changed)
    assert refused == (outcome(DirectoryCatalog(folder, checks_of()).check) is not None)


def test_what_has_not_changed_is_neither_parsed_nor_compiled_again(
    shop: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    catalog = DirectoryCatalog(folder, checks_of())
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
    # the flow looks at the event type
    assert after.compiled("flow", "for_you") is not before.compiled("flow", "for_you")


def test_a_revision_that_other_code_has_checked_is_checked_as_a_whole(
    shop: Path, tmp_path: Path
) -> None:
    """What was valid to that code need not be to this."""
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    DirectoryCatalog(folder, checks_of()).publish()
    uses = folder / ".kirana/revisions/1/uses.json"
    record = json.loads(uses.read_text())
    assert record["uses"]
    uses.write_text(json.dumps({**record, "code": "0"}))
    again = DirectoryCatalog(folder, checks_of())
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


def test_the_catalog_knows_no_engine() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n[]\n"


def test_a_name_that_becomes_an_id_is_noticed_by_the_flows_that_use_it(
    shop: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    objects = shop_objects(folder)
    objects["flow", "for_you"]["context"] = {"other": "number"}
    write(folder, objects)
    DirectoryCatalog(folder, checks_of()).publish()
    objects["entity", "lonely"] = {"kind": "entity", "name": "lonely", "keys": [{"name": "other"}]}
    write(folder, objects)
    (problem,) = outcome(DirectoryCatalog(folder, checks_of()).publish) or ()
    assert "'other' is an id" in problem
