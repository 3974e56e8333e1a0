"""Inference from ids to a matrix and scores, compared with the rows that were written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.errors import InvalidInput, TooLarge, Unknown
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite
from kirana.features.values import column_of
from kirana.inferflow import InferRequest, InferResult
from kirana.inferflow.engine import InferflowService
from kirana.key_texts import key_texts
from kirana.models import ModelRunner
from kirana.request import RequestContext
from kirana.revision import Revision
from tests.store_calls import DownStore
from tests.support import (
    SHOP,
    SHOP_WEIGHTS,
    Shop,
    open_shop,
    publish,
    write_linear_model,
    write_shop,
)
from tests.unit.models.test_onnx import two_outputs

MORE = """
---
kind: entity
name: brand
keys: [{name: brand_id}]
---
kind: feature_group
name: brand.stats
features: [{name: rank, dtype: int32, default: -5}]
---
kind: inferflow
name: branded
context: {product_id: product}
rows: product_id
resolve: {brand_id: product.attrs.title}
features: [brand.stats.rank, product.stats.clicks]
models: [{name: sum, model: two_columns, output: sum}]
score: sum
---
kind: inferflow
name: titled
context: {product_id: product}
rows: product_id
resolve: {category_id: product.attrs.title}
features: [category.stats.share]
models: [{name: sum, model: one_column, output: sum}]
score: sum
---
kind: inferflow
name: by_category
context: {category_id: category, user_id: user}
rows: category_id
features: [user_category.affinity.clicks, category.stats.share]
models: [{name: sum, model: two_columns, output: sum}]
score: sum
---
kind: model
name: one_column
path: one/model.onnx
---
kind: inferflow
name: both
context: {product_id: product}
rows: product_id
features: [product.stats.clicks, product.stats.ctr, category.stats.share]
resolve: {category_id: product.attrs.category_id}
models:
  - {name: column, model: two_outputs, output: column}
  - {name: sum, model: three_columns, output: sum}
  - {name: flat, model: two_outputs, output: flat}
score: "column + 10 * flat + 100 * sum"
---
kind: model
name: two_columns
path: two/model.onnx
---
kind: model
name: three_columns
path: three/model.onnx
---
kind: model
name: two_outputs
path: outputs/model.onnx
"""
AGE, CTR, CLICKS, IN_STOCK, SHARE, AFFINITY = range(1, 7)
DEFAULTS = [0.0, 30.0, 0.5, 0.0, 1.0, 0.25, -1.0]


def open_bigger_shop(folder: Path) -> Shop:
    """Publish and open the shop with four more inferflows."""
    write_shop(folder, SHOP + MORE)
    write_linear_model(folder / "models/one/model.onnx", [1.0], "sum")
    write_linear_model(folder / "models/two/model.onnx", [1.0, 1.0], "sum")
    write_linear_model(folder / "models/three/model.onnx", [1.0, 0.0, 0.0], "sum")
    (folder / "models/outputs").mkdir(parents=True)
    two_outputs(folder / "models/outputs/model.onnx")
    publish(folder)
    return open_shop(folder)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = open_bigger_shop(tmp_path / "shop")
    yield shop
    await shop.close()


async def put(
    shop: Shop,
    group: str,
    keys: dict[str, Any],
    *,
    age_ms: int = 0,
    **columns: Sequence[Any],
) -> None:
    """Write rows of a group through the service, with an event time `age_ms` before now."""
    feature_group = shop.source.load(shop.source.current()).group(group)
    texts = key_texts(feature_group.entity, keys)
    write = FeatureWrite(
        group,
        texts,
        {
            name: column_of(feature_group.current.feature(name), values, field=name)
            for name, values in columns.items()
        },
        np.full(len(texts), int(time.time() * 1000) - age_ms, dtype=np.uint64),
    )
    assert (await shop.features.write(write, shop.request())).stale == 0


async def put_attrs(shop: Shop, ids: list[Any], categories: list[int | None]) -> None:
    titles, stock = ["t"] * len(ids), [False] * len(ids)
    await put(
        shop,
        "product.attrs",
        {"product_id": ids},
        title=titles,
        category_id=categories,
        in_stock=stock,
    )


async def infer(
    shop: Shop, products: Sequence[Any], user: Any = "u", model_id: str = "ranker", **inputs: Any
) -> InferResult:
    context = {"product_id": products}
    if model_id == "ranker":
        context["user_id"] = user
    return await shop.inferflow.infer(InferRequest(model_id, context, inputs), shop.request())


async def refusal(
    shop: Shop, context: Any, model_id: str = "ranker", **inputs: Any
) -> InvalidInput:
    """Assert that a request is refused; return the error."""
    with pytest.raises(InvalidInput) as caught:
        await shop.inferflow.infer(InferRequest(model_id, context, inputs), shop.request())
    return caught.value


async def test_missing_rows_are_defaults_and_are_counted(shop: Shop) -> None:
    result = await infer(shop, ["1", "2", "3"])
    assert result.ids == ["1", "2", "3"]
    assert result.matrix.tolist() == [DEFAULTS] * 3
    assert result.matrix.dtype == np.float32
    assert result.defaults == {
        "user.profile": 3,
        "product.stats": 3,
        "product.attrs": 3,
        "category.stats": 3,
        "user_category.affinity": 3,
    }


async def test_features_of_the_user_are_repeated_in_every_row(shop: Shop) -> None:
    await put(shop, "user.profile", {"user_id": "u"}, age=[44])
    result = await infer(shop, ["1", "2"])
    assert result.matrix[:, AGE].tolist() == [44, 44]
    assert "user.profile" not in result.defaults


async def test_features_of_products_are_in_the_order_of_the_request(shop: Shop) -> None:
    await put(
        shop,
        "product.stats",
        {"product_id": ["1", "2", "3"]},
        clicks=[1, 2, 3],
        ctr=[0.25, 0.5, 0.75],
    )
    result = await infer(shop, ["3", "x", "1"])
    assert result.matrix[:, CLICKS].tolist() == [3, 0, 1]
    assert result.matrix[:, CTR].tolist() == [0.75, 0.5, 0.25]
    assert result.defaults["product.stats"] == 1


async def test_a_resolved_category_is_used_in_a_compound_key(shop: Shop) -> None:
    await put_attrs(shop, ["1", "2", "3"], [7, 8, 7])
    await put(shop, "category.stats", {"category_id": [7, 8]}, share=[0.75, 0.125])
    await put(
        shop,
        "user_category.affinity",
        {"user_id": ["u", "v"], "category_id": [7, 8]},
        clicks=[5.0, 9.0],
    )
    result = await infer(shop, ["1", "2", "3"])
    assert result.matrix[:, SHARE].tolist() == [0.75, 0.125, 0.75]
    assert result.matrix[:, AFFINITY].tolist() == [5, -1, 5]
    assert result.matrix[:, IN_STOCK].tolist() == [0, 0, 0]
    assert result.defaults == {"user.profile": 3, "product.stats": 3, "user_category.affinity": 1}


async def test_a_missing_product_does_not_resolve_to_the_default_category(shop: Shop) -> None:
    await put_attrs(shop, ["zero"], [0])
    await put(shop, "category.stats", {"category_id": [0]}, share=[0.875])
    await put(shop, "user_category.affinity", {"user_id": "u", "category_id": [0]}, clicks=[8.0])
    result = await infer(shop, ["zero", "missing"])
    assert result.matrix[:, SHARE].tolist() == [0.875, 0.25]
    assert result.matrix[:, AFFINITY].tolist() == [8, -1]
    assert result.defaults["category.stats"] == 1
    assert result.defaults["user_category.affinity"] == 1


async def test_a_null_category_resolves_to_no_row(shop: Shop) -> None:
    await put_attrs(shop, ["1"], [None])
    await put(shop, "category.stats", {"category_id": [0]}, share=[0.875])
    result = await infer(shop, ["1"])
    assert result.matrix[0, SHARE] == 0.25
    assert result.defaults["category.stats"] == 1
    assert "product.attrs" not in result.defaults


async def test_a_row_whose_version_lacks_the_category_resolves_to_no_row(tmp_path: Path) -> None:
    """The category was added to the group later, and its default must not be used as an id."""
    folder = tmp_path / "shop"
    shop_before = SHOP.replace("  - {name: category_id, dtype: int64, default: 0}\n", "").replace(
        "resolve: {category_id: product.attrs.category_id}\n", ""
    )
    for name in ("  - category.stats.share\n", "  - user_category.affinity.clicks\n"):
        shop_before = shop_before.replace(name, "")
    publish(write_shop(folder, shop_before), models=False)
    shop = open_shop(folder)
    await put(shop, "product.attrs", {"product_id": ["1"]}, title=["t"], in_stock=[False])
    await shop.close()
    publish(write_shop(folder))
    shop = open_shop(folder)
    await put(shop, "category.stats", {"category_id": [0]}, share=[0.875])
    result = await infer(shop, ["1"])
    await shop.close()
    assert result.matrix[0, IN_STOCK] == 0
    assert result.matrix[0, SHARE] == 0.25
    assert result.defaults["category.stats"] == 1


async def test_expired_rows_are_defaults(shop: Shop) -> None:
    eight_days = 8 * 86_400_000
    await put(
        shop, "product.stats", {"product_id": ["1"]}, age_ms=eight_days, clicks=[9], ctr=[0.125]
    )
    result = await infer(shop, ["1"])
    assert result.matrix[0, [CTR, CLICKS]].tolist() == [0.5, 0]
    assert result.defaults["product.stats"] == 1


async def test_a_null_cell_is_a_default_and_its_row_is_not_counted(shop: Shop) -> None:
    await put(shop, "product.stats", {"product_id": ["1"]}, clicks=[4], ctr=[None])
    result = await infer(shop, ["1"])
    assert result.matrix[0, [CTR, CLICKS]].tolist() == [0.5, 4]
    assert "product.stats" not in result.defaults


async def test_a_request_may_repeat_a_product(shop: Shop) -> None:
    await put(shop, "product.stats", {"product_id": ["1", "2"]}, clicks=[1, 2], ctr=[0, 0])
    result = await infer(shop, ["2", "1", "2", "x", "x"], similar=[1, 2, 3, 4, 5])
    assert result.ids == ["2", "1", "2", "x", "x"]
    assert result.matrix[:, CLICKS].tolist() == [2, 1, 2, 0, 0]
    assert result.matrix[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert result.defaults["product.stats"] == 2


async def test_integers_and_strings_are_the_same_ids(shop: Shop) -> None:
    await put(shop, "product.stats", {"product_id": ["1", 2]}, clicks=[1, 2], ctr=[0, 0])
    await put(shop, "user.profile", {"user_id": 7}, age=[50])
    result = await infer(shop, [1, "2", "1"], user="7")
    assert result.ids == ["1", "2", "1"]
    assert result.matrix[:, CLICKS].tolist() == [1, 2, 1]
    assert result.matrix[:, AGE].tolist() == [50, 50, 50]


async def test_ids_are_escaped_in_compound_keys(shop: Shop) -> None:
    await put_attrs(shop, ["a|b", "a\\"], [1, 2])
    keys = {"user_id": "u|1", "category_id": [1, 2]}
    await put(shop, "user_category.affinity", keys, clicks=[3.0, 4.0])
    result = await infer(shop, ["a|b", "a\\"], user="u|1")
    assert result.matrix[:, AFFINITY].tolist() == [3, 4]
    assert (await infer(shop, ["a|b"], user="u")).matrix[0, AFFINITY] == -1


async def test_a_string_feature_resolves_to_an_entity_with_a_string_key(shop: Shop) -> None:
    titles = ["acme", "a|b", "", "nobody"]
    ids = ["1", "2", "3", "4"]
    await put(
        shop,
        "product.attrs",
        {"product_id": ids},
        title=titles,
        category_id=[1] * 4,
        in_stock=[True] * 4,
    )
    await put(shop, "brand.stats", {"brand_id": ["acme", "a|b"]}, rank=[1, 2])
    result = await infer(shop, [*ids, "missing"], model_id="branded")
    assert result.matrix[:, 0].tolist() == [1, 2, -5, -5, -5]
    assert result.defaults["brand.stats"] == 3


async def test_a_string_feature_resolves_to_an_integer_key_in_canonical_form(shop: Shop) -> None:
    await put(
        shop,
        "product.attrs",
        {"product_id": ["1", "2", "3"]},
        title=["7", "007", "books"],
        category_id=[1] * 3,
        in_stock=[True] * 3,
    )
    await put(shop, "category.stats", {"category_id": [7]}, share=[0.875])
    result = await infer(shop, ["1", "2", "3"], model_id="titled")
    assert result.matrix[:, 0].tolist() == [0.875, 0.875, 0.25]


async def test_a_stored_text_that_is_not_a_valid_key_affects_its_own_row_only(shop: Shop) -> None:
    await put(
        shop,
        "product.attrs",
        {"product_id": ["1", "2"]},
        title=["acme", "x" * 500],
        category_id=[1] * 2,
        in_stock=[True] * 2,
    )
    await put(shop, "brand.stats", {"brand_id": ["acme"]}, rank=[1])
    result = await infer(shop, ["1", "2"], model_id="branded")
    assert result.matrix[:, 0].tolist() == [1, -5]


async def test_scores_are_the_score_expression_over_the_model_outputs(shop: Shop) -> None:
    await put(shop, "product.stats", {"product_id": ["1", "2"]}, clicks=[10, 20], ctr=[0.5, 0.75])
    result = await infer(shop, ["1", "2"], similar=[1.0, 2.0])
    click = result.matrix @ np.array(SHOP_WEIGHTS["click"], dtype=np.float32)
    order = result.matrix @ np.array(SHOP_WEIGHTS["order"], dtype=np.float32)
    assert result.outputs["p_click"] == pytest.approx(click)
    assert result.outputs["p_order"] == pytest.approx(order)
    assert result.scores == pytest.approx(click + 4 * order)
    assert result.scores.dtype == np.float32
    assert result.scores.shape == (2,)


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (2, [2, 2]),
        (0.5, [0.5, 0.5]),
        ([1, 2.5], [1, 2.5]),
        (np.array([3, 4], dtype=np.float32), [3, 4]),
    ],
)
async def test_an_input_is_one_number_or_one_per_row(
    shop: Shop, value: Any, column: list[float]
) -> None:
    assert (await infer(shop, ["1", "2"], similar=value)).matrix[:, 0].tolist() == column


async def test_an_input_may_be_nan(shop: Shop) -> None:
    result = await infer(shop, ["1", "2"], similar=[float("nan"), 1.0])
    assert np.isnan(result.matrix[0, 0])
    assert np.isnan(result.scores[0])
    assert not np.isnan(result.scores[1])


@pytest.mark.parametrize(
    "value",
    [[1], [1, 2, 3], [], [[1], [2]], [[1, 2]], [1, [2]], ["a", "b"], "a", 1e300, [1, 1e300]],
    ids=repr,
)
async def test_an_invalid_input_is_named(shop: Shop, value: Any) -> None:
    error = await refusal(shop, {"user_id": "u", "product_id": ["1", "2"]}, similar=value)
    assert (error.field or "").startswith("inputs.similar")


async def test_an_unknown_input_is_named(shop: Shop) -> None:
    error = await refusal(shop, {"user_id": "u", "product_id": ["1"]}, similer=1)
    assert error.field == "inputs.similer"
    assert "'ranker' has no input 'similer': did you mean 'similar'?" in error.message


@pytest.mark.parametrize(
    ("context", "field", "reason"),
    [
        ({"product_id": ["1"]}, "context.user_id", "'user_id' is missing"),
        ({"user_id": "u"}, "context.product_id", "'product_id' is missing"),
        ({"user_id": None, "product_id": ["1"]}, "context.user_id", "'user_id' is missing"),
        (
            {"user_id": "u", "product_id": ["1"], "category_id": 7},
            "context.category_id",
            "'ranker' has no id 'category_id'",
        ),
        ({"user_id": ["u"], "product_id": ["1"]}, "context.user_id", "one id, not a list"),
        (
            {"user_id": "u", "product_id": "1"},
            "context.product_id",
            "one id per row",
        ),
        (
            {"user_id": "u", "product_id": 1},
            "context.product_id",
            "one id per row",
        ),
        ({"user_id": "", "product_id": ["1"]}, "context.user_id", "not be empty"),
        ({"user_id": True, "product_id": ["1"]}, "context.user_id", "string or an integer"),
        ({"user_id": "x" * 500, "product_id": ["1"]}, "context.user_id", "limit"),
        ({"user_id": "\ud800", "product_id": ["1"]}, "context.user_id", "Unicode"),
        ({"user_id": "u", "product_id": ["1", ""]}, "context.product_id[1]", "not be empty"),
        ({"user_id": "u", "product_id": ["1", 1.5]}, "context.product_id[1]", "not float"),
        ({"user_id": "u", "product_id": ["1", True]}, "context.product_id[1]", "not bool"),
        ({"user_id": "u", "product_id": ["1", None]}, "context.product_id[1]", "not NoneType"),
        ({"user_id": "u", "product_id": [["1"]]}, "context.product_id[0]", "not list"),
        ({"user_id": "u", "product_id": ["1", "x" * 500]}, "context.product_id[1]", "limit"),
        ({"user_id": "u", "product_id": ["1", "\ud800"]}, "context.product_id[1]", "Unicode"),
    ],
    ids=lambda value: str(ascii(value))[:60],
)
async def test_an_invalid_id_is_named(shop: Shop, context: Any, field: str, reason: str) -> None:
    error = await refusal(shop, context)
    assert reason in error.message
    assert error.field == field


@pytest.mark.parametrize("category", ["books", "1.5", 2**63, "-9223372036854775809"])
async def test_an_id_is_checked_against_the_dtype_of_its_key(shop: Shop, category: Any) -> None:
    error = await refusal(shop, {"user_id": "u", "category_id": [1, category]}, "by_category")
    assert error.field == "context.category_id[1]"


async def test_any_id_of_the_context_can_define_the_rows(shop: Shop) -> None:
    await put(shop, "category.stats", {"category_id": [7]}, share=[0.875])
    keys = {"user_id": "u", "category_id": [8]}
    await put(shop, "user_category.affinity", keys, clicks=[3.0])
    context: dict[str, Any] = {"user_id": "u", "category_id": ["007", 8]}
    result = await shop.inferflow.infer(InferRequest("by_category", context), shop.request())
    assert result.ids == ["7", "8"]
    assert result.matrix.tolist() == [[-1, 0.875], [3, 0.25]]


class CountedModels:
    """A model runner that records the model and the outputs of each run."""

    def __init__(self, models: ModelRunner) -> None:
        self._models = models
        self.runs: list[tuple[str, list[str]]] = []

    async def prepare(self, revision: Revision) -> None:
        await self._models.prepare(revision)

    async def run(
        self,
        model: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        context: RequestContext,
    ) -> dict[str, Any]:
        self.runs.append((model, list(outputs)))
        return await self._models.run(model, inputs, outputs, context)


async def test_a_model_runs_once_for_all_its_outputs(shop: Shop) -> None:
    await put(shop, "product.stats", {"product_id": ["1"]}, clicks=[4], ctr=[0.75])
    models = CountedModels(shop.models)
    service = InferflowService(shop.features, models, shop.source)
    result = await service.infer(InferRequest("both", {"product_id": ["1"]}), shop.request())
    # `column` is clicks + 2 * ctr + 4 * share, and `flat` is the sum of the three.
    assert {name: values.tolist() for name, values in result.outputs.items()} == {
        "column": [6.5],
        "sum": [4.0],
        "flat": [5.0],
    }
    assert list(result.outputs) == ["column", "sum", "flat"]
    assert result.scores.tolist() == [6.5 + 50.0 + 400.0]
    assert sorted(models.runs) == [("three_columns", ["sum"]), ("two_outputs", ["column", "flat"])]


async def test_an_unknown_model_id_is_named(shop: Shop) -> None:
    with pytest.raises(Unknown, match="did you mean 'ranker'") as caught:
        await infer(shop, ["1"], model_id="rankr")
    assert (caught.value.code, caught.value.field) == ("unknown_model_id", "model_id")


async def test_no_rows_give_an_empty_result(shop: Shop) -> None:
    result = await infer(shop, [])
    assert result.ids == []
    assert result.matrix.shape == (0, 7)
    assert result.scores.shape == (0,)
    assert {name: values.shape for name, values in result.outputs.items()} == {
        "p_click": (0,),
        "p_order": (0,),
    }
    assert result.defaults == {}


async def test_more_rows_than_the_limit_are_refused(shop: Shop) -> None:
    limited = InferflowService(shop.features, shop.models, shop.source, max_rows=3)
    request = InferRequest("ranker", {"user_id": "u", "product_id": ["1", "2", "3"]})
    assert len((await limited.infer(request, shop.request())).ids) == 3
    too_large = InferRequest("ranker", {"user_id": "u", "product_id": ["1", "2", "3", "4"]})
    with pytest.raises(TooLarge, match="the request has 4 rows, the limit is 3") as caught:
        await limited.infer(too_large, shop.request())
    assert caught.value.field == "context.product_id"


class TestTopK:
    @staticmethod
    async def best(
        shop: Shop, similar: Sequence[float], top_k: int | None, *, keep_matrix: bool = True
    ) -> InferResult:
        """Rank products 0, 1, 2, ... that differ only in `similar`. A higher value wins."""
        context = {"user_id": "u", "product_id": list(range(len(similar)))}
        inputs = {"similar": list(similar)}
        request = InferRequest("ranker", context, inputs, top_k, keep_matrix)
        return await shop.inferflow.infer(request, shop.request())

    async def test_the_best_rows_come_first_with_their_matrix_and_outputs(self, shop: Shop) -> None:
        similar = [1, 5, 3, 4, 2]
        result = await self.best(shop, similar, 3)
        whole = await self.best(shop, similar, None)
        order = [1, 3, 2]
        assert result.ids == ["1", "3", "2"]
        assert result.scores.tolist() == whole.scores[order].tolist()
        assert result.scores.dtype == np.float32
        assert result.matrix is not None
        assert whole.matrix is not None
        assert result.matrix.tolist() == whole.matrix[order].tolist()
        assert result.matrix[:, 0].tolist() == [5, 4, 3]
        assert result.columns == whole.columns
        assert result.outputs.keys() == whole.outputs.keys() == {"p_click", "p_order"}
        for name, values in result.outputs.items():
            assert values.tolist() == whole.outputs[name][order].tolist()

    @pytest.mark.parametrize("top_k", [1, 7, 30, 99, 100, 101, 1000])
    async def test_rows_with_equal_scores_stay_in_the_order_of_the_request(
        self, shop: Shop, top_k: int
    ) -> None:
        similar = [float(i * 7 % 4) for i in range(100)]
        result = await self.best(shop, similar, top_k)
        order = sorted(range(100), key=lambda i: -similar[i])[:top_k]
        assert result.ids == [str(i) for i in order]
        assert len(result.scores) == len(order)

    async def test_without_top_k_rows_stay_in_the_order_of_the_request(self, shop: Shop) -> None:
        assert (await self.best(shop, [1, 3, 2], None)).ids == ["0", "1", "2"]

    async def test_a_score_of_nan_is_sorted_last(self, shop: Shop) -> None:
        result = await self.best(shop, [float("nan"), 1, 2], 3)
        assert result.ids == ["2", "1", "0"]
        assert np.isnan(result.scores[2])

    async def test_defaults_are_counted_over_all_rows(self, shop: Shop) -> None:
        await put(shop, "product.stats", {"product_id": [1]}, clicks=[1], ctr=[0.5])
        result = await self.best(shop, [1, 9, 2, 3], 1)
        assert result.ids == ["1"]
        assert result.defaults["product.stats"] == 3

    async def test_top_k_of_no_rows_is_empty(self, shop: Shop) -> None:
        result = await self.best(shop, [], 5)
        assert result.ids == []
        assert result.scores.shape == (0,)
        assert result.matrix is not None
        assert result.matrix.shape == (0, 7)

    @pytest.mark.parametrize("top_k", [None, 2])
    async def test_the_matrix_is_omitted_unless_it_is_requested(
        self, shop: Shop, top_k: int | None
    ) -> None:
        kept = await self.best(shop, [1, 3, 2], top_k)
        result = await self.best(shop, [1, 3, 2], top_k, keep_matrix=False)
        assert kept.matrix is not None
        assert result.matrix is None
        assert result.ids == kept.ids
        assert result.scores.tolist() == kept.scores.tolist()
        assert {name: values.tolist() for name, values in result.outputs.items()} == {
            name: values.tolist() for name, values in kept.outputs.items()
        }


async def test_a_store_that_does_not_answer_gives_defaults_and_they_are_counted(shop: Shop) -> None:
    features = FeatureService(DownStore(), shop.source)
    service = InferflowService(features, shop.models, shop.source)
    request = InferRequest("ranker", {"user_id": "u", "product_id": ["1", "2"]})
    result = await service.infer(request, shop.request())
    assert result.matrix.tolist() == [DEFAULTS] * 2
    assert set(result.defaults.values()) == {2}


@dataclass(frozen=True)
class World:
    """Stored rows of one user, by product or category number, and a request.

    A value of None in `stats` or `attrs` is a null cell. An `age` of None is a missing row, and a
    `similar` of None is an input that is not sent.
    """

    age: int | None
    stats: dict[int, tuple[int | None, float | None]]
    attrs: dict[int, tuple[int | None, bool | None]]
    shares: dict[int, float]
    affinities: dict[int, float]
    request: list[int]
    as_text: list[bool]
    similar: float | list[float] | None


QUARTERS = st.integers(-400, 400).map(lambda number: number / 4)
PRODUCTS, CATEGORIES = st.integers(0, 5), st.integers(0, 3)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    request = draw(st.lists(PRODUCTS, min_size=1, max_size=8))
    rows = len(request)
    inputs = st.one_of(st.none(), QUARTERS, st.lists(QUARTERS, min_size=rows, max_size=rows))
    clicks, maybe = st.integers(0, 1000), st.none()
    return World(
        draw(st.none() | st.integers(-100, 100)),
        draw(st.dictionaries(PRODUCTS, st.tuples(maybe | clicks, maybe | QUARTERS))),
        draw(st.dictionaries(PRODUCTS, st.tuples(maybe | CATEGORIES, maybe | st.booleans()))),
        draw(st.dictionaries(CATEGORIES, QUARTERS)),
        draw(st.dictionaries(CATEGORIES, QUARTERS)),
        request,
        draw(st.lists(st.booleans(), min_size=rows, max_size=rows)),
        draw(inputs),
    )


def expected(world: World) -> tuple[list[list[float]], dict[str, int]]:
    """Return the matrix, computed row by row, and how many rows of each group are defaults."""
    matrix: list[list[float]] = []
    defaults: dict[str, int] = {}

    def missing(group: str, default: float) -> float:
        defaults[group] = defaults.get(group, 0) + 1
        return default

    for i, product in enumerate(world.request):
        similar = world.similar[i] if isinstance(world.similar, list) else world.similar or 0.0
        age = missing("user.profile", 30) if world.age is None else world.age
        clicks, ctr = world.stats.get(product, (None, None))
        if product not in world.stats:
            missing("product.stats", 0)
        category, in_stock = world.attrs.get(product, (None, None))
        if product not in world.attrs:
            missing("product.attrs", 0)
        share = world.shares.get(category) if category is not None else None
        affinity = world.affinities.get(category) if category is not None else None
        matrix.append(
            [
                similar,
                age,
                0.5 if ctr is None else ctr,
                0 if clicks is None else clicks,
                1 if in_stock is None else in_stock,
                missing("category.stats", 0.25) if share is None else share,
                missing("user_category.affinity", -1) if affinity is None else affinity,
            ]
        )
    return matrix, defaults


class Bench:
    """One shop for all examples; each example has its own range of ids."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.turns = count(1)

    async def run(self, world: World) -> InferResult:
        shop, base = self.shop, next(self.turns) * 1000

        def shifted(ids: Sequence[int]) -> list[int]:
            return [base + id_ for id_ in ids]

        if world.age is not None:
            await put(shop, "user.profile", {"user_id": base}, age=[world.age])
        if world.stats:
            clicks, ctr = zip(*world.stats.values(), strict=True)
            keys = {"product_id": shifted([*world.stats])}
            await put(shop, "product.stats", keys, clicks=clicks, ctr=ctr)
        if world.attrs:
            categories, stock = zip(*world.attrs.values(), strict=True)
            await put(
                shop,
                "product.attrs",
                {"product_id": shifted([*world.attrs])},
                title=["é"] * len(world.attrs),
                category_id=[None if id_ is None else base + id_ for id_ in categories],
                in_stock=stock,
            )
        if world.shares:
            keys = {"category_id": shifted([*world.shares])}
            await put(shop, "category.stats", keys, share=[*world.shares.values()])
        if world.affinities:
            await put(
                shop,
                "user_category.affinity",
                {"user_id": base, "category_id": shifted([*world.affinities])},
                clicks=[*world.affinities.values()],
            )
        ids = shifted(world.request)
        mixed = [str(id_) if text else id_ for id_, text in zip(ids, world.as_text, strict=True)]
        inputs: dict[str, Any] = {} if world.similar is None else {"similar": world.similar}
        return await infer(shop, mixed, base, **inputs)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    shop = open_bigger_shop(tmp_path_factory.mktemp("bench"))
    # Category 0 is the default of `category_id`. If it were used as an id, its share of 777 would
    # appear in the matrix.
    asyncio.run(put(shop, "category.stats", {"category_id": [0]}, share=[777.0]))
    yield Bench(shop)
    asyncio.run(shop.close())


@settings(max_examples=60)
@given(world=worlds())
def test_the_matrix_agrees_with_a_row_by_row_computation(bench: Bench, world: World) -> None:
    result = asyncio.run(bench.run(world))
    matrix, defaults = expected(world)
    assert result.matrix.tolist() == matrix
    assert result.defaults == defaults
    click, order = (np.array(SHOP_WEIGHTS[name]) for name in ("click", "order"))
    scores = np.array(matrix) @ (click + 4 * order)
    assert result.scores.tolist() == pytest.approx(scores.tolist(), rel=1e-4, abs=1e-3)
