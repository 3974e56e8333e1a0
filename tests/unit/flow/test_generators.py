"""Candidate generators over stored lists and a user's history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.catalog.objects import CandidateGeneratorObject
from kirana.codecs import Column
from kirana.errors import CatalogError, InvalidInput
from kirana.features.source import FeatureWrite, WriteResult
from kirana.flow.generators import Generator, build_generator
from kirana.flow.generators.neighbours import best_neighbours, seed_ages
from kirana.interactions import Interactions
from kirana.key_texts import key_texts
from tests.support import SHOP, Shop, open_shop, publish, write_shop

MORE = """
---
kind: feature_group
name: user_category.best
features:
  - {name: ids, dtype: int64, shape: [3]}
  - {name: weights, dtype: float32, shape: [3]}
---
kind: feature_group
name: product.counted
features:
  - {name: ids, dtype: int64, shape: [4]}
  - {name: weights, dtype: uint8, shape: [4]}
"""


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """Open the shop with two more groups of stored lists."""
    folder = write_shop(tmp_path / "shop", SHOP + MORE)
    publish(folder)
    shop = open_shop(folder)
    yield shop
    await shop.close()


def build(shop: Shop, kind: str, group: str = "product.similar", **parameters: Any) -> Generator:
    lists = {"ids": f"{group}.ids", "weights": f"{group}.weights"}
    declaration = CandidateGeneratorObject.model_validate(
        {"name": "g", "generator": kind, "with": {**lists, **parameters}}
    )
    return build_generator(declaration, shop.source.load(shop.revision))


async def write_list(
    shop: Shop, keys: dict[str, object], ids: list[int], weights: list[float], group: str
) -> None:
    catalog = shop.source.load(shop.revision)
    feature_group = catalog.group(group)
    version = feature_group.current
    columns = {
        "ids": Column(np.array([ids], dtype=version.feature("ids").dtype)),
        "weights": Column(np.array([weights], dtype=version.feature("weights").dtype)),
    }
    texts = key_texts(feature_group.entity, keys)
    write = FeatureWrite(group, texts, columns, np.array([1], dtype=np.uint64))
    assert await shop.features.write(write, shop.request()) == WriteResult(1, 0)


async def write_similar(shop: Shop, product: str, neighbours: dict[int, float]) -> None:
    ids = [*neighbours, *[0] * (4 - len(neighbours))]
    weights = [*neighbours.values(), *[0.0] * (4 - len(neighbours))]
    await write_list(shop, {"product_id": product}, ids, weights, "product.similar")


async def generate(
    generator: Generator, shop: Shop, seeds: Interactions, limit: int = 10, **context: Any
) -> dict[str, float]:
    """Return ids with weights, in order."""
    ids, weights = await generator.generate(seeds, context, limit, shop.features, shop.request())
    assert weights.dtype == np.float32
    assert len(set(ids)) == len(ids) == len(weights)
    return dict(zip(ids, weights.tolist(), strict=True))


def clicks(*events: tuple[str, int]) -> Interactions:
    """Return interactions of (product, timestamp) pairs, which must be given newest first."""
    times = np.array([time for _, time in events], dtype=np.int64)
    return Interactions([product for product, _ in events], times, [None] * len(events))


class TestNeighbours:
    async def test_weights_are_summed_over_the_seeds_with_decay(self, shop: Shop) -> None:
        await write_similar(shop, "1", {10: 1.0, 11: 0.5})
        await write_similar(shop, "2", {11: 1.0, 12: 0.8})
        await write_similar(shop, "3", {12: 1.0})
        generator = build(shop, "neighbours", decay=0.5)
        candidates = await generate(generator, shop, clicks(("1", 30), ("2", 20), ("3", 10)))
        assert list(candidates) in (["10", "11", "12"], ["11", "10", "12"])
        assert candidates == pytest.approx({"10": 1.0, "11": 0.5 + 0.5, "12": 0.5 * 0.8 + 0.25})

    async def test_seeds_of_the_same_time_have_the_same_age(self, shop: Shop) -> None:
        await write_similar(shop, "1", {10: 1.0})
        await write_similar(shop, "2", {11: 1.0})
        await write_similar(shop, "3", {12: 1.0})
        generator = build(shop, "neighbours", decay=0.25)
        for order in (("1", "2"), ("2", "1")):
            seeds = clicks((order[0], 30), (order[1], 30), ("3", 10))
            candidates = await generate(generator, shop, seeds)
            assert candidates == pytest.approx({"10": 0.5, "11": 0.5, "12": 0.0625})

    async def test_a_product_counts_once_at_its_newest_event(self, shop: Shop) -> None:
        await write_similar(shop, "1", {10: 1.0})
        await write_similar(shop, "2", {11: 1.0})
        generator = build(shop, "neighbours", decay=0.5)
        seeds = clicks(("1", 40), ("1", 30), ("2", 20), ("1", 10))
        assert await generate(generator, shop, seeds) == pytest.approx({"10": 1.0, "11": 0.5})

    async def test_entries_with_weight_0_are_padding(self, shop: Shop) -> None:
        await write_similar(shop, "1", {10: 1.0})
        generator = build(shop, "neighbours")
        assert await generate(generator, shop, clicks(("1", 1))) == {"10": 1.0}

    async def test_products_without_neighbours_still_age_the_seeds_behind_them(
        self, shop: Shop
    ) -> None:
        await write_similar(shop, "2", {11: 1.0})
        generator = build(shop, "neighbours", decay=0.5)
        assert await generate(generator, shop, clicks(("new", 2), ("2", 1))) == pytest.approx(
            {"11": 0.5}
        )
        assert await generate(generator, shop, clicks(("new", 2))) == {}

    async def test_an_empty_history_gives_no_candidates(self, shop: Shop) -> None:
        generator = build(shop, "neighbours")
        assert generator.needs_seeds
        assert await generate(generator, shop, Interactions.empty()) == {}

    async def test_the_limit_keeps_the_best(self, shop: Shop) -> None:
        await write_similar(shop, "1", {10: 0.1, 11: 0.3, 12: 0.2, 13: 0.4})
        candidates = await generate(build(shop, "neighbours"), shop, clicks(("1", 1)), limit=2)
        assert list(candidates) == ["13", "11"]

    @pytest.mark.parametrize("product", ["a|b", "a\\b", "a|", "é"])
    async def test_products_with_special_characters_in_their_ids_are_found(
        self, shop: Shop, product: str
    ) -> None:
        await write_similar(shop, product, {10: 1.0})
        candidates = await generate(build(shop, "neighbours"), shop, clicks((product, 1)))
        assert candidates == {"10": 1.0}

    async def test_integer_weights_are_accepted(self, shop: Shop) -> None:
        await write_list(
            shop, {"product_id": "1"}, [10, 11, 0, 0], [200, 100, 0, 0], "product.counted"
        )
        generator = build(shop, "neighbours", "product.counted")
        assert await generate(generator, shop, clicks(("1", 1))) == {"10": 200.0, "11": 100.0}

    def test_a_list_of_an_entity_with_several_keys_is_refused(self, shop: Shop) -> None:
        """A history gives one product id per event, so it can't form a key text of two keys."""
        with pytest.raises(CatalogError, match="user_category"):
            build(shop, "neighbours", "user_category.best")

    @pytest.mark.parametrize("decay", [0.0, -0.5, 1.1, "fast"])
    def test_a_decay_out_of_range_is_refused(self, shop: Shop, decay: object) -> None:
        with pytest.raises(CatalogError) as caught:
            build(shop, "neighbours", decay=decay)
        assert caught.value.problems[0].path == "with.decay"


@pytest.mark.parametrize(
    ("times", "ages"),
    [
        ([], []),
        ([5], [0]),
        ([9, 8, 7], [0, 1, 2]),
        ([9, 9, 9], [1, 1, 1]),
        ([9, 8, 8, 7], [0, 1.5, 1.5, 3]),
        ([9, 9, 7, 7], [0.5, 0.5, 2.5, 2.5]),
        ([2**53 - 1, 0], [0, 1]),
    ],
)
def test_an_age_is_a_position_and_ties_have_the_mean_position(
    times: list[int], ages: list[float]
) -> None:
    assert seed_ages(np.array(times, dtype=np.int64)).tolist() == ages


@st.composite
def stored_lists(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], list[float], int]:
    """Draw the ids and weights of some seeds, a factor per seed, and a limit."""
    seeds, width = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    row = st.lists(st.integers(0, 9), min_size=width, max_size=width, unique=width < 10)
    weight = st.lists(st.integers(0, 4), min_size=width, max_size=width)
    ids = draw(st.lists(row, min_size=seeds, max_size=seeds))
    weights = draw(st.lists(weight, min_size=seeds, max_size=seeds))
    factors = draw(st.lists(st.sampled_from([1.0, 0.5, 0.25]), min_size=seeds, max_size=seeds))
    return ids, weights, factors, draw(st.integers(1, 12))


@given(stored_lists())
def test_best_neighbours_agree_with_plain_sums(
    drawn: tuple[list[list[int]], list[list[int]], list[float], int],
) -> None:
    ids, weights, factors, limit = drawn
    totals: dict[int, float] = {}
    for row, row_weights, factor in zip(ids, weights, factors, strict=True):
        for id_, weight in zip(row, row_weights, strict=True):
            if weight:
                totals[id_] = totals.get(id_, 0.0) + factor * weight
    best_ids, best_weights = best_neighbours(
        np.array(ids, dtype=np.int32),
        np.array(weights, dtype=np.float32),
        np.array(factors, dtype=np.float32),
        limit,
    )
    best = sorted(totals.values(), reverse=True)[:limit]
    assert best_weights.tolist() == best
    assert [totals[id_] for id_ in best_ids.tolist()] == best


class TestStoredList:
    async def test_a_fixed_key_needs_no_context(self, shop: Shop) -> None:
        await write_similar(shop, "popular", {3: 1.0, 4: 3.0, 5: 2.0})
        generator = build(shop, "stored_list", keys={"product_id": "popular"})
        assert not generator.needs_seeds
        candidates = await generate(generator, shop, Interactions.empty())
        assert list(candidates.items()) == [("4", 3.0), ("5", 2.0), ("3", 1.0)]

    async def test_a_key_may_come_from_the_context(self, shop: Shop) -> None:
        await write_list(
            shop,
            {"user_id": "7", "category_id": 3},
            [1, 2, 3],
            [1.0, 2.0, 3.0],
            "user_category.best",
        )
        generator = build(shop, "stored_list", "user_category.best", keys={"category_id": "3"})
        for user in (7, "7"):
            candidates = await generate(generator, shop, Interactions.empty(), user_id=user)
            assert list(candidates) == ["3", "2", "1"]
        assert await generate(generator, shop, Interactions.empty(), user_id="8") == {}

    async def test_a_fixed_key_takes_precedence_over_the_context(self, shop: Shop) -> None:
        await write_similar(shop, "popular", {3: 1.0})
        generator = build(shop, "stored_list", keys={"product_id": "popular"})
        assert await generate(generator, shop, Interactions.empty(), product_id="x") == {"3": 1.0}

    @pytest.mark.parametrize(
        "context",
        [{}, {"product_id": None}, {"product_id": ["1"]}, {"product_id": 1.5},
         {"product_id": True}, {"product_id": ""}, {"product_id": "x" * 500}],
        ids=lambda context: str(context)[:40],
    )  # fmt: skip
    async def test_an_invalid_id_is_named_in_the_context(
        self, shop: Shop, context: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidInput) as caught:
            await generate(build(shop, "stored_list"), shop, Interactions.empty(), **context)
        assert caught.value.field == "context.product_id"

    async def test_weights_of_0_are_not_candidates_and_the_limit_keeps_the_best(
        self, shop: Shop
    ) -> None:
        await write_list(shop, {"product_id": "p"}, [1, 2, 3, 4], [0, 5, 0, 9], "product.similar")
        generator = build(shop, "stored_list", keys={"product_id": "p"})
        assert await generate(generator, shop, Interactions.empty()) == {"4": 9.0, "2": 5.0}
        assert await generate(generator, shop, Interactions.empty(), limit=1) == {"4": 9.0}

    async def test_integer_weights_are_accepted(self, shop: Shop) -> None:
        await write_list(shop, {"product_id": "p"}, [1, 2, 3, 4], [0, 5, 0, 9], "product.counted")
        generator = build(shop, "stored_list", "product.counted", keys={"product_id": "p"})
        assert list((await generate(generator, shop, Interactions.empty())).items()) == [
            ("4", 9.0),
            ("2", 5.0),
        ]
        assert await generate(generator, shop, Interactions.empty(), limit=1) == {"4": 9.0}

    def test_a_fixed_key_that_is_not_a_key_of_the_entity_is_refused(self, shop: Shop) -> None:
        with pytest.raises(CatalogError, match="'product' has no key 'id'") as caught:
            build(shop, "stored_list", keys={"id": "1"})
        assert caught.value.problems[0].path == "with.keys.id"

    def test_a_fixed_key_of_the_wrong_dtype_is_refused(self, shop: Shop) -> None:
        with pytest.raises(CatalogError) as caught:
            build(shop, "stored_list", "user_category.best", keys={"category_id": "books"})
        assert caught.value.problems[0].path == "with.keys.category_id"
