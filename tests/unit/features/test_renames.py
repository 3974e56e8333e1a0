"""Renamed features: readers and writers use either name, with both codecs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import InvalidInput, Unknown
from kirana.features import FeatureQuery
from kirana.serving.checks import catalog_checks
from tests.support import nth, request_at
from tests.unit.features.evolving import GROUP, World, no_row, not_in_version, null, stored

pytestmark = pytest.mark.usefixtures("inner_loops")

CLICKS = "name: clicks, dtype: int64, default: 0"
CTR = "name: ctr, dtype: float32, default: 0.5"
RENAMED = "name: clicks_7d, dtype: int64, default: 7, aliases: [clicks]"


@pytest.fixture(params=["packed", "text"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path / "catalog", request.param)


@pytest.fixture
async def renamed(world: World) -> World:
    """Return a world on revision 2, where `clicks` is renamed, with rows of both versions."""
    world.publish(CLICKS, CTR)
    world.publish(CTR, RENAMED)
    await world.write({"old": {"clicks": 1, "ctr": 0.25}}, revision=1)
    rows: dict[str, dict[str, Any]] = {
        "late": {"clicks": 2, "ctr": 0.25},
        "null": {"clicks": None, "ctr": None},
    }
    await world.write(rows, revision=2, version=1)
    await world.write({"new": {"ctr": 0.75, "clicks_7d": 3}}, revision=2)
    return world


KEYS = ["new", "old", "none", "late", "null"]
CELLS = [stored(3), stored(1), no_row(7), stored(2), null(7)]


@pytest.mark.parametrize(
    "names",
    [
        ["stats.clicks_7d"],
        ["stats.clicks"],
        ["stats.clicks", "stats.clicks_7d"],
        ["stats.clicks_7d", "stats.ctr", "stats.clicks", "stats.clicks"],
    ],
    ids=" ".join,
)
async def test_rows_of_both_names_are_read_by_either_name(renamed: World, names: list[str]) -> None:
    answer = await renamed.read(KEYS, *names, revision=2)
    assert answer.status == ["ok", "ok", "missing", "ok", "ok"]
    rates = [stored(0.75), stored(0.25), no_row(0.5), stored(0.25), null(0.5)]
    assert answer.cells == {name: rates if name == "stats.ctr" else CELLS for name in names}


async def test_rows_of_the_old_name_alone_are_read_by_either_name(renamed: World) -> None:
    """All rows of the batch have one version and no nulls."""
    names = ("stats.clicks", "stats.clicks_7d", "stats.ctr")
    answer = await renamed.read(["late", "old"], *names, revision=2)
    clicks = [stored(2), stored(1)]
    assert [*answer.cells.values()] == [clicks, clicks, [stored(0.25)] * 2]


@pytest.mark.parametrize("name", ["stats.clicks", "stats.clicks_7d"])
async def test_a_matrix_accepts_either_name(renamed: World, name: str) -> None:
    for service in (renamed.plain, renamed.cached, renamed.cached):
        for matrix in ((name,), (name, "stats.ctr"), ("stats.ctr", name)):
            (rows,) = await service.read(
                [FeatureQuery("product", KEYS, matrix)],
                request_at(renamed.catalog, 2, renamed.now_ms),
            )
            column = matrix.index(name)
            assert rows.matrix[:, column].tolist() == [3.0, 1.0, 7.0, 2.0, 7.0]
            assert rows.matrix.shape == (5, len(matrix))


@pytest.mark.parametrize(
    ("dtype", "default", "old", "new"),
    [
        ("string", "'?'", "tea", "jam"),
        ("bool", "true", False, False),
        ("float16", "1.5", 0.25, 0.75),
        ("uint64", "5", 2**64 - 1, 0),
        ("float32, shape: [2]", "[1.0, 2.0]", [3.0, 4.0], [5.0, 6.0]),
    ],
)
async def test_every_dtype_can_be_renamed(
    world: World, dtype: str, default: str, old: Any, new: Any
) -> None:
    world.publish(CLICKS, f"name: before, dtype: {dtype}, default: {default}")
    await world.write({"old": {"clicks": 1, "before": old}}, revision=1)
    await world.write({"null": {"clicks": 1, "before": None}}, revision=1)
    after = f"name: after, dtype: {dtype}, default: {default}, aliases: [before]"
    two = world.publish(after, CLICKS)
    await world.write({"new": {"clicks": 2, "after": new}}, revision=two)
    answer = await world.read(["old", "new", "null"], "stats.before", "stats.after", revision=two)
    expected: Any = {"'?'": "?", "true": True, "1.5": 1.5, "5": 5}.get(default, [1.0, 2.0])
    cells = [stored(old), stored(new), null(expected)]
    assert answer.cells == {"stats.before": cells, "stats.after": cells}


async def test_a_feature_renamed_twice_is_read_by_all_three_names(world: World) -> None:
    world.publish("name: a, dtype: int64")
    world.publish("name: b, dtype: int64, aliases: [a]")
    three = world.publish("name: c, dtype: int64, default: 9, aliases: [b, a]")
    for number, name in enumerate("abc", start=1):
        await world.write({name: {name: number}}, revision=three, version=number)
    names = ("stats.a", "stats.b", "stats.c")
    answer = await world.read(["c", "a", "none", "b"], *names, revision=three)
    cells = [stored(3), stored(1), no_row(9), stored(2)]
    assert answer.cells == dict.fromkeys(names, cells)


async def test_a_version_without_the_feature_reads_as_default(world: World) -> None:
    world.publish("name: a, dtype: int64")
    world.publish(CTR)
    three = world.publish(CTR, "name: c, dtype: int64, default: 9, aliases: [a]")
    await world.write({"1": {"a": 1}}, revision=three, version=1)
    await world.write({"2": {"ctr": 0.25}}, revision=three, version=2)
    await world.write({"3": {"ctr": 0.75, "c": 3}}, revision=three)
    answer = await world.read(["3", "2", "1"], "stats.c", "stats.ctr", revision=three)
    assert answer.cells["stats.c"] == [stored(3), not_in_version(9), stored(1)]
    assert answer.cells["stats.ctr"] == [stored(0.75), stored(0.25), not_in_version(0.5)]


async def test_renamed_features_that_swap_places_keep_their_values(world: World) -> None:
    """The two features have the same dtype, so only their aliases distinguish their bytes."""
    world.publish("name: x, dtype: int64", "name: y, dtype: int64")
    await world.write({"old": {"x": 1, "y": 2}}, revision=1)
    two = world.publish(
        "name: y_new, dtype: int64, aliases: [y]", "name: x_new, dtype: int64, aliases: [x]"
    )
    names = ("stats.x", "stats.y", "stats.x_new", "stats.y_new")
    answer = await world.read(["old"], *names, revision=two)
    assert [*answer.cells.values()] == [[stored(1)], [stored(2)], [stored(1)], [stored(2)]]


async def test_the_new_name_is_unknown_on_an_older_revision(renamed: World) -> None:
    with pytest.raises(Unknown, match=r"stats\.clicks_7d"):
        await renamed.read(["old"], "stats.clicks_7d", revision=1)


async def test_a_reader_on_the_older_revision_reads_rows_of_the_new_name(renamed: World) -> None:
    """The newer schema version lists the old name as an alias."""
    answer = await renamed.read(["new", "old", "none"], "stats.clicks", "stats.ctr", revision=1)
    assert answer.status == ["ok", "ok", "missing"]
    assert answer.cells == {
        "stats.clicks": [stored(3), stored(1), no_row(0)],
        "stats.ctr": [stored(0.75), stored(0.25), no_row(0.5)],
    }


async def test_a_writer_must_use_the_names_of_its_schema_version(renamed: World) -> None:
    with pytest.raises(InvalidInput, match="'clicks_7d' is missing") as caught:
        await renamed.write({"1": {"clicks": 1, "ctr": 0.5}}, revision=2)
    assert caught.value.field == "columns.clicks_7d"
    with pytest.raises(InvalidInput, match="'clicks' is missing") as caught:
        await renamed.write({"1": {"clicks_7d": 1, "ctr": 0.5}}, revision=2, version=1)
    assert caught.value.field == "columns.clicks"
    both = {"clicks_7d": 1, "clicks": 1, "ctr": 0.5}
    with pytest.raises(Unknown) as unknown:
        await renamed.write({"1": both}, revision=2)
    assert unknown.value.field == "columns.clicks"


async def test_an_alias_is_stored_with_its_schema_version(renamed: World) -> None:
    """Another `DirectoryCatalog` reads the alias. Publishing the group again adds no version."""
    other = DirectoryCatalog(renamed.catalog.folder, catalog_checks())
    versions = other.load(nth(other, 2)).groups[GROUP].versions
    aliases = [
        {feature.name: feature.aliases for feature in version.features} for version in versions
    ]
    assert aliases == [{"clicks": (), "ctr": ()}, {"ctr": (), "clicks_7d": ("clicks",)}]
    assert renamed.publish(CTR, RENAMED) == 2
    assert len(other.load(nth(other, 2)).groups[GROUP].versions) == 2


async def test_an_alias_can_be_added_later(world: World) -> None:
    """Rows of the old name lack the feature until the alias is published."""
    world.publish(CLICKS)
    await world.write({"old": {"clicks": 1}}, revision=1)
    two = world.publish(RENAMED.replace(", aliases: [clicks]", ""))
    assert (await world.read(["old"], "stats.clicks_7d", revision=two)).cells == {
        "stats.clicks_7d": [not_in_version(7)]
    }
    three = world.publish(RENAMED)
    await world.write({"new": {"clicks_7d": 3}}, revision=three)
    answer = await world.read(["old", "new"], "stats.clicks", "stats.clicks_7d", revision=three)
    cells = [stored(1), stored(3)]
    assert answer.cells == {"stats.clicks": cells, "stats.clicks_7d": cells}
