"""A group whose schema changes while clients write and read it, with both codecs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kirana.errors import InvalidInput, Unknown
from kirana.features.source import WriteResult
from tests.unit.features.evolving import NOW_MS, World, no_row, not_in_version, null, stored

pytestmark = pytest.mark.usefixtures("inner_loops")

CLICKS = "name: clicks, dtype: int64, default: 0"
CTR = "name: ctr, dtype: float32, default: 0.5"
ORDERS = "name: orders, dtype: int64, default: 9"
TITLE = "name: title, dtype: string, default: '?'"
STOCK = "name: stock, dtype: bool, default: true"
VECTOR = "name: vector, dtype: float32, shape: [2], default: [1.0, 2.0]"


@pytest.fixture(params=["packed", "text"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path / "catalog", request.param)


async def test_added_features_read_as_defaults_in_old_rows(world: World) -> None:
    world.publish(CLICKS)
    await world.write({"old": {"clicks": 1}, "old null": {"clicks": None}}, revision=1)
    two = world.publish(VECTOR, TITLE, CLICKS, STOCK)
    row = {"vector": [3.0, 4.0], "title": "tea", "clicks": 2, "stock": False}
    await world.write({"new": row, "new null": dict.fromkeys(row)}, revision=two)
    keys = ["new", "old", "none", "old null", "new null"]
    names = [f"stats.{name}" for name in ("clicks", "vector", "title", "stock")]
    answer = await world.read(keys, *names, revision=two)
    assert answer.status == ["ok", "ok", "missing", "ok", "ok"]
    assert answer.cells == {
        "stats.clicks": [stored(2), stored(1), no_row(0), null(0), null(0)],
        "stats.vector": [
            stored([3.0, 4.0]),
            not_in_version([1.0, 2.0]),
            no_row([1.0, 2.0]),
            not_in_version([1.0, 2.0]),
            null([1.0, 2.0]),
        ],
        "stats.title": [
            stored("tea"),
            not_in_version("?"),
            no_row("?"),
            not_in_version("?"),
            null("?"),
        ],
        "stats.stock": [
            stored(False),
            not_in_version(True),
            no_row(True),
            not_in_version(True),
            null(True),
        ],
    }


async def test_removed_features_are_unknown_and_the_others_remain(world: World) -> None:
    world.publish(CLICKS, TITLE, STOCK, CTR)
    row = {"clicks": 4, "title": "tea", "stock": False, "ctr": 0.75}
    await world.write({"old": row}, revision=1)
    two = world.publish(CTR, CLICKS)
    await world.write({"new": {"ctr": 0.25, "clicks": 5}}, revision=two)
    answer = await world.read(["old", "new"], "stats.clicks", "stats.ctr", revision=two)
    assert answer.status == ["ok", "ok"]
    assert answer.cells == {
        "stats.clicks": [stored(4), stored(5)],
        "stats.ctr": [stored(0.75), stored(0.25)],
    }
    for name in ("stats.title", "stats.stock"):
        with pytest.raises(Unknown, match=name):
            await world.read(["old"], name, revision=two)
    # Readers on the older revision still read the removed features.
    answer = await world.read(["old", "new"], "stats.title", "stats.clicks", revision=1)
    assert answer.cells["stats.title"] == [stored("tea"), not_in_version("?")]
    assert answer.cells["stats.clicks"] == [stored(4), stored(5)]


@pytest.mark.parametrize("title", ["", "tea", "a longer one"])
async def test_a_removed_string_of_any_length_does_not_affect_other_features(
    world: World, title: str
) -> None:
    world.publish(CLICKS, TITLE)
    await world.write({"old": {"clicks": 4, "title": title}}, revision=1)
    two = world.publish(CLICKS, ORDERS)
    answer = await world.read(["old"], "stats.clicks", "stats.orders", revision=two)
    assert answer.status == ["ok"]
    assert answer.cells == {"stats.clicks": [stored(4)], "stats.orders": [not_in_version(9)]}


@pytest.mark.parametrize("title", ["", "tea", "a longer one"])
async def test_an_added_string_does_not_affect_readers_on_the_older_revision(
    world: World, title: str
) -> None:
    world.publish(CLICKS, ORDERS)
    await world.write({"old": {"clicks": 3, "orders": 2}}, revision=1)
    two = world.publish(CLICKS, TITLE)
    await world.write({"new": {"clicks": 4, "title": title}}, revision=two)
    answer = await world.read(["new", "old"], "stats.clicks", "stats.orders", revision=1)
    assert answer.status == ["ok", "ok"]
    assert answer.cells["stats.clicks"] == [stored(4), stored(3)]
    assert answer.cells["stats.orders"] == [not_in_version(9), stored(2)]


async def test_a_feature_that_is_added_again_reads_its_old_values(world: World) -> None:
    world.publish(CLICKS, CTR)
    await world.write({"first": {"clicks": 1, "ctr": 0.25}}, revision=1)
    two = world.publish(CLICKS)
    await world.write({"second": {"clicks": 2}}, revision=two)
    three = world.publish(CLICKS, CTR)
    await world.write({"third": {"clicks": 3, "ctr": 0.75}}, revision=three)
    answer = await world.read(["first", "second", "third"], "stats.ctr", revision=three)
    assert answer.cells["stats.ctr"] == [stored(0.25), not_in_version(0.5), stored(0.75)]


async def test_a_default_is_that_of_the_readers_revision(world: World) -> None:
    world.publish(CLICKS)
    await world.write({"old": {"clicks": 0}, "null": {"clicks": None}}, revision=1)
    two = world.publish(CLICKS.replace("0", "7"), ORDERS)
    three = world.publish(CLICKS.replace("0", "8"), ORDERS.replace("9", "10"))
    for revision, clicks in ((1, 0), (two, 7), (three, 8)):
        answer = await world.read(["old", "null", "none"], "stats.clicks", revision=revision)
        assert answer.cells["stats.clicks"] == [stored(0), null(clicks), no_row(clicks)]
    for revision, orders in ((two, 9), (three, 10)):
        answer = await world.read(["old", "none"], "stats.orders", revision=revision)
        assert answer.cells["stats.orders"] == [not_in_version(orders), no_row(orders)]


async def test_reordering_features_changes_no_values(world: World) -> None:
    world.publish(CLICKS, ORDERS, TITLE)
    await world.write({"old": {"clicks": 1, "orders": 2, "title": "a"}}, revision=1)
    two = world.publish(TITLE, ORDERS, CLICKS)
    await world.write({"new": {"title": "b", "orders": 4, "clicks": 3}}, revision=two)
    names = ("stats.orders", "stats.title", "stats.clicks")
    for revision in (1, two):
        answer = await world.read(["new", "old"], *names, revision=revision)
        assert answer.cells == {
            "stats.orders": [stored(4), stored(2)],
            "stats.title": [stored("b"), stored("a")],
            "stats.clicks": [stored(3), stored(1)],
        }


# writers


async def test_writers_may_keep_using_any_older_version(world: World) -> None:
    world.publish(CLICKS)
    world.publish(CLICKS, CTR)
    world.publish(CTR, TITLE)
    four = world.publish(ORDERS, CLICKS, TITLE)
    await world.write({"1": {"clicks": 1}}, revision=four, version=1)
    await world.write({"2": {"clicks": 2, "ctr": 0.25}}, revision=four, version=2)
    await world.write({"3": {"ctr": 0.25, "title": "tea"}}, revision=four, version=3)
    await world.write({"4": {"orders": 4, "clicks": 5, "title": "jam"}}, revision=four)
    names = ("stats.clicks", "stats.title", "stats.orders")
    answer = await world.read(["4", "3", "2", "1"], *names, revision=four)
    assert answer.status == ["ok"] * 4
    assert answer.cells == {
        "stats.clicks": [stored(5), not_in_version(0), stored(2), stored(1)],
        "stats.title": [stored("jam"), stored("tea"), not_in_version("?"), not_in_version("?")],
        "stats.orders": [stored(4), not_in_version(9), not_in_version(9), not_in_version(9)],
    }


async def test_writes_of_different_versions_are_ordered_by_event_time(
    world: World,
) -> None:
    world.publish(CLICKS)
    two = world.publish(CLICKS, CTR)
    assert await world.write({"1": {"clicks": 2, "ctr": 0.25}}, revision=two) == WriteResult(1, 0)
    old = {"1": {"clicks": 1}}
    assert await world.write(old, revision=two, version=1, at_ms=NOW_MS - 1) == WriteResult(0, 1)
    answer = await world.read(["1"], "stats.clicks", "stats.ctr", revision=two)
    assert answer.cells == {"stats.clicks": [stored(2)], "stats.ctr": [stored(0.25)]}
    assert await world.write(old, revision=two, version=1, at_ms=NOW_MS + 1) == WriteResult(1, 0)
    # A write replaces the whole row: it is not merged with the row of the newer version.
    answer = await world.read(["1"], "stats.clicks", "stats.ctr", revision=two)
    assert answer.cells == {"stats.clicks": [stored(1)], "stats.ctr": [not_in_version(0.5)]}


async def test_a_write_needs_exactly_the_features_of_its_schema_version(world: World) -> None:
    world.publish(CLICKS, ORDERS)
    two = world.publish(CLICKS, CTR)
    with pytest.raises(InvalidInput, match=r"'ctr' is missing: .* version 2") as caught:
        await world.write({"1": {"clicks": 1}}, revision=two)
    assert caught.value.field == "columns.ctr"
    with pytest.raises(InvalidInput, match=r"'orders' is missing: .* version 1") as caught:
        await world.write({"1": {"clicks": 1}}, revision=two, version=1)
    assert caught.value.field == "columns.orders"
    all_three = {"clicks": 1, "orders": 2, "ctr": 0.5}
    with pytest.raises(Unknown, match="ctr") as unknown:
        await world.write({"1": all_three}, revision=two, version=1)
    assert unknown.value.field == "columns.ctr"
    assert (await world.read(["1"], "stats.clicks", revision=two)).status == ["missing"]


# readers that do not know a schema version yet


async def test_an_unknown_version_is_looked_up_once(world: World) -> None:
    world.publish(CLICKS)
    two = world.publish(CTR, CLICKS)
    rows = {key: {"ctr": 0.25, "clicks": 5} for key in ("1", "2", "3")}
    await world.write(rows, revision=two)
    reader = world.service()
    world.plain = world.cached = reader
    before = world.catalog.current_calls
    for key in rows:
        answer = await world.read([key], "stats.clicks", revision=1)
        assert (answer.status, answer.cells) == (["ok"], {"stats.clicks": [stored(5)]})
    assert world.catalog.current_calls == before + 1


async def test_readers_on_every_revision_read_rows_of_every_version(world: World) -> None:
    revisions = [world.publish(CLICKS), world.publish(CTR, CLICKS), world.publish(CLICKS, TITLE)]
    rows: list[dict[str, Any]] = [
        {"clicks": 1},
        {"ctr": 0.25, "clicks": 2},
        {"clicks": 3, "title": "tea"},
    ]
    for number, row in enumerate(rows, start=1):
        await world.write({str(number): row}, revision=3, version=number)
    answers = await asyncio.gather(
        *(
            world.read(["3", "1", "2"], "stats.clicks", revision=revision)
            for revision in revisions * 2
        )
    )
    for answer in answers:
        assert answer.status == ["ok"] * 3
        assert answer.cells == {"stats.clicks": [stored(3), stored(1), stored(2)]}
