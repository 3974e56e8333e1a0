"""A group whose schema changes under its writers and readers, in both codecs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kirana.errors import InvalidInput, Unknown
from kirana.features.source import WriteResult
from tests.unit.features.evolving import NOW_MS, World, lacking, no_row, null, stored

pytestmark = pytest.mark.usefixtures("inmost_loops")

CLICKS = "name: clicks, dtype: int64, default: 0"
CTR = "name: ctr, dtype: float32, default: 0.5"
ORDERS = "name: orders, dtype: int64, default: 9"
TITLE = "name: title, dtype: string, default: '?'"
STOCK = "name: stock, dtype: bool, default: true"
VECTOR = "name: vector, dtype: float32, shape: [2], default: [1.0, 2.0]"


@pytest.fixture(params=["packed", "text"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path / "catalog", request.param)


async def test_features_that_were_added_are_defaults_in_old_rows(world: World) -> None:
    world.publish(CLICKS)
    await world.write({"old": {"clicks": 1}, "old null": {"clicks": None}}, revision=1)
    two = world.publish(VECTOR, TITLE, CLICKS, STOCK)
    row = {"vector": [3.0, 4.0], "title": "tea", "clicks": 2, "stock": False}
    await world.write({"new": row, "new null": dict.fromkeys(row)}, revision=two)
    keys = ["new", "old", "none", "old null", "new null"]
    names = [f"stats.{name}" for name in ("clicks", "vector", "title", "stock")]
    found = await world.read(keys, *names, revision=two)
    assert found.status == ["ok", "ok", "missing", "ok", "ok"]
    assert found.cells == {
        "stats.clicks": [stored(2), stored(1), no_row(0), null(0), null(0)],
        "stats.vector": [
            stored([3.0, 4.0]),
            lacking([1.0, 2.0]),
            no_row([1.0, 2.0]),
            lacking([1.0, 2.0]),
            null([1.0, 2.0]),
        ],
        "stats.title": [stored("tea"), lacking("?"), no_row("?"), lacking("?"), null("?")],
        "stats.stock": [stored(False), lacking(True), no_row(True), lacking(True), null(True)],
    }


async def test_features_that_were_removed_are_unknown_and_the_others_stay(world: World) -> None:
    world.publish(CLICKS, TITLE, STOCK, CTR)
    row = {"clicks": 4, "title": "tea", "stock": False, "ctr": 0.75}
    await world.write({"old": row}, revision=1)
    two = world.publish(CTR, CLICKS)
    await world.write({"new": {"ctr": 0.25, "clicks": 5}}, revision=two)
    found = await world.read(["old", "new"], "stats.clicks", "stats.ctr", revision=two)
    assert found.status == ["ok", "ok"]
    assert found.cells == {
        "stats.clicks": [stored(4), stored(5)],
        "stats.ctr": [stored(0.75), stored(0.25)],
    }
    for name in ("stats.title", "stats.stock"):
        with pytest.raises(Unknown, match=name):
            await world.read(["old"], name, revision=two)
    # who runs on the older revision still has them
    found = await world.read(["old", "new"], "stats.title", "stats.clicks", revision=1)
    assert found.cells["stats.title"] == [stored("tea"), lacking("?")]
    assert found.cells["stats.clicks"] == [stored(4), stored(5)]


@pytest.mark.parametrize("title", ["", "tea", "a longer one"])
async def test_a_string_that_was_removed_harms_no_row_whatever_its_length(
    world: World, title: str
) -> None:
    world.publish(CLICKS, TITLE)
    await world.write({"old": {"clicks": 4, "title": title}}, revision=1)
    two = world.publish(CLICKS, ORDERS)
    found = await world.read(["old"], "stats.clicks", "stats.orders", revision=two)
    assert found.status == ["ok"]
    assert found.cells == {"stats.clicks": [stored(4)], "stats.orders": [lacking(9)]}


@pytest.mark.parametrize("title", ["", "tea", "a longer one"])
async def test_a_string_that_is_new_harms_no_reader_of_the_older_revision(
    world: World, title: str
) -> None:
    world.publish(CLICKS, ORDERS)
    await world.write({"old": {"clicks": 3, "orders": 2}}, revision=1)
    two = world.publish(CLICKS, TITLE)
    await world.write({"new": {"clicks": 4, "title": title}}, revision=two)
    found = await world.read(["new", "old"], "stats.clicks", "stats.orders", revision=1)
    assert found.status == ["ok", "ok"]
    assert found.cells["stats.clicks"] == [stored(4), stored(3)]
    assert found.cells["stats.orders"] == [lacking(9), stored(2)]


async def test_a_feature_that_comes_back_is_the_one_it_was(world: World) -> None:
    world.publish(CLICKS, CTR)
    await world.write({"first": {"clicks": 1, "ctr": 0.25}}, revision=1)
    two = world.publish(CLICKS)
    await world.write({"second": {"clicks": 2}}, revision=two)
    three = world.publish(CLICKS, CTR)
    await world.write({"third": {"clicks": 3, "ctr": 0.75}}, revision=three)
    found = await world.read(["first", "second", "third"], "stats.ctr", revision=three)
    assert found.cells["stats.ctr"] == [stored(0.25), lacking(0.5), stored(0.75)]


async def test_a_default_that_was_changed_is_that_of_the_readers_revision(world: World) -> None:
    world.publish(CLICKS)
    await world.write({"old": {"clicks": 0}, "null": {"clicks": None}}, revision=1)
    two = world.publish(CLICKS.replace("0", "7"), ORDERS)
    three = world.publish(CLICKS.replace("0", "8"), ORDERS.replace("9", "10"))
    for revision, clicks in ((1, 0), (two, 7), (three, 8)):
        found = await world.read(["old", "null", "none"], "stats.clicks", revision=revision)
        assert found.cells["stats.clicks"] == [stored(0), null(clicks), no_row(clicks)]
    for revision, orders in ((two, 9), (three, 10)):
        found = await world.read(["old", "none"], "stats.orders", revision=revision)
        assert found.cells["stats.orders"] == [lacking(orders), no_row(orders)]


async def test_an_order_that_was_changed_changes_no_value(world: World) -> None:
    world.publish(CLICKS, ORDERS, TITLE)
    await world.write({"old": {"clicks": 1, "orders": 2, "title": "a"}}, revision=1)
    two = world.publish(TITLE, ORDERS, CLICKS)
    await world.write({"new": {"title": "b", "orders": 4, "clicks": 3}}, revision=two)
    names = ("stats.orders", "stats.title", "stats.clicks")
    for revision in (1, two):
        found = await world.read(["new", "old"], *names, revision=revision)
        assert found.cells == {
            "stats.orders": [stored(4), stored(2)],
            "stats.title": [stored("b"), stored("a")],
            "stats.clicks": [stored(3), stored(1)],
        }


# writers


async def test_older_writers_go_on_for_as_long_as_they_like(world: World) -> None:
    world.publish(CLICKS)
    world.publish(CLICKS, CTR)
    world.publish(CTR, TITLE)
    four = world.publish(ORDERS, CLICKS, TITLE)
    await world.write({"1": {"clicks": 1}}, revision=four, version=1)
    await world.write({"2": {"clicks": 2, "ctr": 0.25}}, revision=four, version=2)
    await world.write({"3": {"ctr": 0.25, "title": "tea"}}, revision=four, version=3)
    await world.write({"4": {"orders": 4, "clicks": 5, "title": "jam"}}, revision=four)
    names = ("stats.clicks", "stats.title", "stats.orders")
    found = await world.read(["4", "3", "2", "1"], *names, revision=four)
    assert found.status == ["ok"] * 4
    assert found.cells == {
        "stats.clicks": [stored(5), lacking(0), stored(2), stored(1)],
        "stats.title": [stored("jam"), stored("tea"), lacking("?"), lacking("?")],
        "stats.orders": [stored(4), lacking(9), lacking(9), lacking(9)],
    }


async def test_the_order_of_writes_is_that_of_their_events_whatever_their_versions(
    world: World,
) -> None:
    world.publish(CLICKS)
    two = world.publish(CLICKS, CTR)
    assert await world.write({"1": {"clicks": 2, "ctr": 0.25}}, revision=two) == WriteResult(1, 0)
    old = {"1": {"clicks": 1}}
    assert await world.write(old, revision=two, version=1, at_ms=NOW_MS - 1) == WriteResult(0, 1)
    found = await world.read(["1"], "stats.clicks", "stats.ctr", revision=two)
    assert found.cells == {"stats.clicks": [stored(2)], "stats.ctr": [stored(0.25)]}
    assert await world.write(old, revision=two, version=1, at_ms=NOW_MS + 1) == WriteResult(1, 0)
    # a group is written whole: nothing of the newer version is merged into it
    found = await world.read(["1"], "stats.clicks", "stats.ctr", revision=two)
    assert found.cells == {"stats.clicks": [stored(1)], "stats.ctr": [lacking(0.5)]}


async def test_a_writer_gives_what_its_version_has_no_more_and_no_less(world: World) -> None:
    world.publish(CLICKS, ORDERS)
    two = world.publish(CLICKS, CTR)
    with pytest.raises(InvalidInput, match="version 2 needs 'ctr'") as caught:
        await world.write({"1": {"clicks": 1}}, revision=two)
    assert caught.value.field == "columns.ctr"
    with pytest.raises(InvalidInput, match="version 1 needs 'orders'") as caught:
        await world.write({"1": {"clicks": 1}}, revision=two, version=1)
    assert caught.value.field == "columns.orders"
    all_three = {"clicks": 1, "orders": 2, "ctr": 0.5}
    with pytest.raises(Unknown, match="ctr") as unknown:
        await world.write({"1": all_three}, revision=two, version=1)
    assert unknown.value.field == "columns.ctr"
    assert (await world.read(["1"], "stats.clicks", revision=two)).status == ["missing"]


# readers who do not know a version yet


async def test_a_reader_of_a_version_that_it_does_not_know_looks_once(world: World) -> None:
    world.publish(CLICKS)
    two = world.publish(CTR, CLICKS)
    rows = {key: {"ctr": 0.25, "clicks": 5} for key in ("1", "2", "3")}
    await world.write(rows, revision=two)
    reader = world.service()
    world.plain = world.cached = reader
    before = world.catalog.asked
    for key in rows:
        found = await world.read([key], "stats.clicks", revision=1)
        assert (found.status, found.cells) == (["ok"], {"stats.clicks": [stored(5)]})
    assert world.catalog.asked == before + 1


async def test_readers_of_every_revision_read_rows_of_every_version_at_once(world: World) -> None:
    revisions = [world.publish(CLICKS), world.publish(CTR, CLICKS), world.publish(CLICKS, TITLE)]
    rows: list[dict[str, Any]] = [
        {"clicks": 1},
        {"ctr": 0.25, "clicks": 2},
        {"clicks": 3, "title": "tea"},
    ]
    for number, row in enumerate(rows, start=1):
        await world.write({str(number): row}, revision=3, version=number)
    found = await asyncio.gather(
        *(world.read(["3", "1", "2"], "stats.clicks", revision=each) for each in revisions * 2)
    )
    for each in found:
        assert each.status == ["ok"] * 3
        assert each.cells == {"stats.clicks": [stored(3), stored(1), stored(2)]}
