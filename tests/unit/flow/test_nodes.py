"""Each kind of node, built as a flow builds it and run over the shop's stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.catalog.snapshot import Catalog
from kirana.codecs import Column
from kirana.errors import CatalogError, InvalidInput
from kirana.features.source import FeatureWrite
from kirana.flow.nodes import OPS
from kirana.flow.nodes.base import Call, Node, Services, Site
from kirana.flow.values import Candidates, Shape, Value
from kirana.inferflow import InferRequest
from kirana.interactions import Event, Interactions
from tests.support import SHOP, Shop, open_shop, publish, write_shop

POPULAR = """
---
kind: candidate_generator
name: popular
generator: stored_list
with:
  ids: product.similar.ids
  weights: product.similar.weights
  keys: {product_id: popular}
"""
SCORED = Shape(Candidates, frozenset({"score"}))
LISTED = Shape(Candidates, frozenset({"similar"}))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """Open the shop with a second candidate generator."""
    folder = write_shop(tmp_path / "shop", SHOP + POPULAR)
    publish(folder)
    shop = open_shop(folder)
    yield shop
    await shop.close()


@pytest.fixture
def catalog(shop: Shop) -> Catalog:
    return shop.source.load(shop.revision)


def build(
    catalog: Catalog, op: str, inputs: Mapping[str, Shape] | None = None, **parameters: Any
) -> Node:
    return OPS[op](parameters, Site("here", catalog, inputs or {}))


def call_on(shop: Shop, **context: Any) -> Call:
    services = Services(shop.features, shop.interactions, shop.inferflow)
    return Call(context, services, shop.request())


async def run(node: Node, shop: Shop, /, inputs: Mapping[str, Value], **context: Any) -> Candidates:
    value = await node.run(inputs, call_on(shop, **context))
    assert isinstance(value, Candidates)
    return value


def columns(**lists: list[float]) -> dict[str, Any]:
    return {name: np.array(values, dtype=np.float32) for name, values in lists.items()}


def clicks(*products: str, newest_ms: int = 1_000) -> Interactions:
    """Return one interaction per product, newest first, a second apart."""
    times = np.array([newest_ms - 1_000 * i for i in range(len(products))], dtype=np.int64)
    return Interactions(list(products), times, [None] * len(products))


async def write_neighbours(shop: Shop, product: str, ids: list[int], weights: list[float]) -> None:
    values = {
        "ids": Column(np.array([ids], dtype=np.int32)),
        "weights": Column(np.array([weights], dtype=np.float32)),
    }
    write = FeatureWrite("product.similar", [product], values, np.array([1], dtype=np.uint64))
    await shop.features.write(write, shop.request())


class TestInteractions:
    async def test_returns_the_newest_events_of_the_user(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        events = [Event("7", "click", product, time) for time, product in enumerate("abcd")]
        await shop.interactions.append([*events, Event("8", "click", "z", 9)], shop.request())
        node = build(catalog, "interactions", event="click", last=3)
        for user in (7, "7"):
            result = await node.run({}, call_on(shop, user_id=user))
            assert isinstance(result, Interactions)
            assert result.product_ids == ["d", "c", "b"]

    async def test_the_user_may_be_another_id_of_the_context(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        await shop.interactions.append([Event("8", "click", "z", 9)], shop.request())
        node = build(catalog, "interactions", event="click", user="friend_id")
        result = await node.run({}, call_on(shop, user_id="7", friend_id="8"))
        assert len(result) == 1

    async def test_a_user_without_events_is_not_an_error(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        node = build(catalog, "interactions", event="click")
        assert len(await node.run({}, call_on(shop, user_id="nobody"))) == 0

    @pytest.mark.parametrize(
        "context",
        [
            {},
            {"user_id": None},
            {"user_id": ""},
            {"user_id": ["7"]},
            {"user_id": 7.0},
            {"user_id": True},
            {"user_id": {"id": 7}},
            {"user_id": "a\0b"},
            {"user_id": "é" * 101},
            {"user_id": "\ud800"},
        ],
        ids=repr,
    )
    async def test_an_invalid_id_is_named_in_the_context(
        self, shop: Shop, catalog: Catalog, context: dict[str, Any]
    ) -> None:
        node = build(catalog, "interactions", event="click")
        with pytest.raises(InvalidInput) as caught:
            await node.run({}, call_on(shop, **context))
        assert caught.value.field == "context.user_id"

    def test_inputs_are_refused(self, catalog: Catalog) -> None:
        with pytest.raises(CatalogError, match="can't consume the candidates of 'a'"):
            build(catalog, "interactions", {"a": SCORED}, event="click")


class TestCandidates:
    async def test_returns_the_weights_in_a_column_named_after_the_node(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        await write_neighbours(shop, "1", [5, 6, 7, 0], [0.5, 2.0, 1.0, 0.0])
        node = build(
            catalog,
            "candidates",
            {"recent": Shape(Interactions)},
            cg_name="similar_products",
            limit=2,
        )
        assert node.gives == Shape(Candidates, frozenset({"here"}))
        result = await run(node, shop, {"recent": clicks("1")})
        assert result.ids == ["6", "7"]
        assert {name: column.tolist() for name, column in result.columns.items()} == {
            "here": [2.0, 1.0]
        }
        assert result.columns["here"].dtype == np.float32

    async def test_empty_interactions_give_empty_candidates(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        node = build(
            catalog, "candidates", {"recent": Shape(Interactions)}, cg_name="similar_products"
        )
        result = await run(node, shop, {"recent": Interactions.empty()})
        assert result.ids == []
        assert result.columns["here"].shape == (0,)

    async def test_a_generator_that_needs_no_seeds_runs_without_inputs(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        await write_neighbours(shop, "popular", [3, 4, 0, 0], [1.0, 2.0, 0.0, 0.0])
        result = await run(build(catalog, "candidates", cg_name="popular"), shop, {})
        assert result.ids == ["4", "3"]

    def test_seeds_from_two_nodes_are_refused(self, catalog: Catalog) -> None:
        inputs = {"a": Shape(Interactions), "b": Shape(Interactions)}
        with pytest.raises(CatalogError, match="one node that gives interactions, not 2"):
            build(catalog, "candidates", inputs, cg_name="similar_products")

    def test_candidates_are_refused_as_seeds(self, catalog: Catalog) -> None:
        with pytest.raises(CatalogError, match="can't consume the candidates of 'a'"):
            build(catalog, "candidates", {"a": SCORED}, cg_name="popular")


class TestMerge:
    async def test_returns_each_id_once_with_all_columns_and_0_for_missing_values(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        shapes = {
            "a": Shape(Candidates, frozenset({"near"})),
            "b": Shape(Candidates, frozenset({"popular", "near"})),
        }
        node = build(catalog, "merge", shapes)
        assert node.gives.columns == {"near", "popular"}
        result = await run(
            node,
            shop,
            {
                "a": Candidates(["x", "y"], columns(near=[1, 2])),
                "b": Candidates(["z", "y"], columns(popular=[3, 4], near=[5, 6])),
            },
        )
        assert result.ids == ["x", "y", "z"]
        assert {name: column.tolist() for name, column in result.columns.items()} == {
            "near": [1, 6, 5],
            "popular": [0, 4, 3],
        }

    async def test_does_not_change_its_inputs(self, shop: Shop, catalog: Catalog) -> None:
        node = build(catalog, "merge", {"a": SCORED, "b": SCORED})
        given = Candidates(["x"], columns(score=[1]))
        await run(node, shop, {"a": given, "b": Candidates(["x"], columns(score=[2]))})
        assert given.columns["score"].tolist() == [1]

    async def test_empty_inputs_give_an_empty_list_with_all_columns(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        node = build(catalog, "merge", {"a": SCORED, "b": LISTED})
        result = await run(node, shop, {"a": SCORED.empty(), "b": LISTED.empty()})
        assert result.ids == []
        assert {name: column.shape for name, column in result.columns.items()} == {
            "score": (0,),
            "similar": (0,),
        }

    @given(
        parts=st.lists(
            st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 100)), min_size=1, max_size=4
        )
    )
    def test_each_id_keeps_its_weight_from_each_input(self, parts: list[dict[str, int]]) -> None:
        import asyncio

        shapes = {f"p{i}": Shape(Candidates, frozenset({f"p{i}"})) for i in range(len(parts))}
        node = OPS["merge"]({}, Site("here", None, shapes))  # type: ignore[arg-type]
        inputs = {
            f"p{i}": Candidates(list(part), columns(**{f"p{i}": [*map(float, part.values())]}))
            for i, part in enumerate(parts)
        }
        merged = asyncio.run(node.run(inputs, None))  # type: ignore[arg-type]
        assert isinstance(merged, Candidates)
        assert sorted(merged.ids) == sorted(set().union(*parts))
        for i, part in enumerate(parts):
            weights = [part.get(id_, 0) for id_ in merged.ids]
            assert merged.columns[f"p{i}"].tolist() == weights

    def test_a_merge_without_inputs_is_refused(self, catalog: Catalog) -> None:
        with pytest.raises(CatalogError, match="must consume"):
            build(catalog, "merge")

    def test_interactions_cannot_be_merged(self, catalog: Catalog) -> None:
        with pytest.raises(CatalogError, match="can't consume the interactions of 'b'"):
            build(catalog, "merge", {"a": SCORED, "b": Shape(Interactions)})


class TestFilter:
    SHAPES = {"list": LISTED, "seen": Shape(Interactions), "bought": Shape(Interactions)}

    async def test_drops_products_of_any_of_the_interactions(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        node = build(catalog, "filter", self.SHAPES)
        listed = Candidates(["1", "2", "3", "4"], columns(similar=[1, 2, 3, 4]))
        result = await run(
            node, shop, {"list": listed, "seen": clicks("2", "9"), "bought": clicks("4")}
        )
        assert result.ids == ["1", "3"]
        assert result.columns["similar"].tolist() == [1, 3]

    async def test_keeps_all_candidates_if_there_are_no_interactions(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        node = build(catalog, "filter", self.SHAPES)
        listed = Candidates(["1"], columns(similar=[1]))
        none = Interactions.empty()
        result = await run(node, shop, {"list": listed, "seen": none, "bought": none})
        assert result.ids == ["1"]

    async def test_may_drop_all_candidates(self, shop: Shop, catalog: Catalog) -> None:
        node = build(catalog, "filter", self.SHAPES)
        listed = Candidates(["1"], columns(similar=[1]))
        result = await run(
            node, shop, {"list": listed, "seen": clicks("1"), "bought": Interactions.empty()}
        )
        assert (result.ids, result.columns["similar"].shape) == ([], (0,))

    def test_two_lists_of_candidates_are_refused(self, catalog: Catalog) -> None:
        with pytest.raises(CatalogError, match="one node that gives candidates"):
            build(catalog, "filter", {**self.SHAPES, "more": SCORED})


class TestInfer:
    async def test_passes_columns_as_inputs_and_adds_scores_and_outputs(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        node = build(catalog, "infer", {"list": LISTED}, model_id="ranker")
        assert node.gives.columns == {"similar", "p_click", "p_order", "score"}
        listed = Candidates(["1", "2"], columns(similar=[3, 5]))
        result = await run(node, shop, {"list": listed}, user_id=7)
        request = InferRequest(
            "ranker", {"user_id": "7", "product_id": ["1", "2"]}, {"similar": [3, 5]}
        )
        expected = await shop.inferflow.infer(request, shop.request())
        assert result.ids == ["1", "2"]
        assert set(result.columns) == node.gives.columns
        assert result.columns["score"].tolist() == expected.scores.tolist()
        assert result.columns["similar"].tolist() == [3, 5]
        assert result.columns["p_click"].tolist() == expected.outputs["p_click"].tolist()
        assert expected.matrix[:, 0].tolist() == [3, 5]

    async def test_empty_candidates_are_not_scored(self, shop: Shop, catalog: Catalog) -> None:
        node = build(catalog, "infer", {"list": LISTED}, model_id="ranker")
        result = await run(node, shop, {"list": LISTED.empty()})
        assert result.ids == []
        assert set(result.columns) == node.gives.columns

    async def test_a_missing_id_of_the_inferflow_is_named(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        node = build(catalog, "infer", {"list": LISTED}, model_id="ranker")
        with pytest.raises(InvalidInput) as caught:
            await run(node, shop, {"list": Candidates(["1"], columns(similar=[1]))})
        assert caught.value.field == "context.user_id"


class TestTopK:
    @staticmethod
    async def top(catalog: Catalog, shop: Shop, scores: list[float], k: int) -> Candidates:
        ids = [f"p{i}" for i in range(len(scores))]
        node = build(catalog, "top_k", {"ranked": SCORED}, k=k)
        return await run(node, shop, {"ranked": Candidates(ids, columns(score=scores))})

    async def test_returns_the_best_candidates_first(self, shop: Shop, catalog: Catalog) -> None:
        result = await self.top(catalog, shop, [1, 3, 2, 4], 3)
        assert result.ids == ["p3", "p1", "p2"]
        assert result.columns["score"].tolist() == [4, 3, 2]

    async def test_ties_stay_in_the_order_of_the_input(self, shop: Shop, catalog: Catalog) -> None:
        result = await self.top(catalog, shop, [1, 2, 1, 2, 1, 2], 4)
        assert result.ids == ["p1", "p3", "p5", "p0"]

    async def test_nan_is_sorted_last(self, shop: Shop, catalog: Catalog) -> None:
        result = await self.top(catalog, shop, [np.nan, -np.inf, np.inf, np.nan, 0], 4)
        assert result.ids == ["p2", "p4", "p1", "p0"]

    async def test_a_k_larger_than_the_list_returns_the_whole_list(
        self, shop: Shop, catalog: Catalog
    ) -> None:
        assert (await self.top(catalog, shop, [1, 2], 10)).ids == ["p1", "p0"]
        assert (await self.top(catalog, shop, [], 10)).ids == []

    async def test_any_column_can_be_the_sort_key(self, shop: Shop, catalog: Catalog) -> None:
        shape = Shape(Candidates, frozenset({"score", "near"}))
        node = build(catalog, "top_k", {"ranked": shape}, k=1, by="near")
        listed = Candidates(["a", "b"], columns(score=[2, 1], near=[1, 2]))
        assert (await run(node, shop, {"ranked": listed})).ids == ["b"]
