"""Checks across the objects of a catalog.

A broken shop is refused, and the problem names the field that is wrong.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, Problem
from kirana.models.files import ModelFiles
from kirana.serving.checks import catalog_checks
from tests.support import SHOP, publish, write_linear_model, write_shop

NEXT_DOCUMENT = "\n---\n"
SHARE_FEATURE = "  - {name: share, dtype: float64, default: 0.25}"


def edited(*edits: tuple[str, str]) -> str:
    """Return the shop's catalog with the first occurrence of each old text replaced."""
    text = SHOP
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def check(folder: Path, catalog: str, *, models: bool = False) -> Catalog:
    """Check a shop with this catalog, and with its model files if `models` is set."""
    write_shop(folder, catalog)
    files = ModelFiles(f"file://{folder}/models") if models else None
    return DirectoryCatalog(folder, catalog_checks(files)).check().catalog


def problems_of(folder: Path, catalog: str, *, models: bool = False) -> tuple[Problem, ...]:
    """Return the problems for which this catalog is refused."""
    with pytest.raises(CatalogError) as caught:
        check(folder, catalog, models=models)
    return caught.value.problems


def line_of(catalog: str, text: str) -> int:
    """Return the number of the line, from 1, in which `text` first occurs."""
    return catalog[: catalog.index(text)].count("\n") + 1


def test_the_shop_is_valid_with_its_models(tmp_path: Path) -> None:
    catalog = check(tmp_path, SHOP, models=True)
    assert sorted(catalog.groups) == [
        "category.stats",
        "product.attrs",
        "product.similar",
        "product.stats",
        "user.profile",
        "user_category.affinity",
    ]
    assert catalog.groups["product.stats"].ttl_ms == 7 * 86_400_000
    assert catalog.groups["product.attrs"].ttl_ms == 0
    assert [key.name for key in catalog.entity("user_category").keys] == ["user_id", "category_id"]


BROKEN = {
    "arithmetic on an id": (
        [("limit: 10}}", 'limit: 10}, when: "user_id % 2 == 1"}')],
        "nodes.similar.when",
        "'user_id' is text, not a number: convert an id with number(user_id)",
    ),
    "arithmetic on an undeclared name": (
        [("limit: 10}}", 'limit: 10}, when: "hour < 5"}')],
        "nodes.similar.when",
        "context: {hour: number}",
    ),
    "arithmetic on declared text": (
        [
            ("limit: 10}}", 'limit: 10}, when: "city > 1"}'),
            ("name: for_you\n", "name: for_you\ncontext: {city: text}\n"),
        ],
        "nodes.similar.when",
        "'city' is text, not a number",
    ),
    "a feature in a condition": (
        [("limit: 10}}", 'limit: 10}, when: "product.stats.ctr > 1"}')],
        "nodes.similar.when",
        "features can't be used in an expression",
    ),
    "an id declared as a number": (
        [("name: for_you\n", "name: for_you\ncontext: {user_id: number}\n")],
        "context.user_id",
        "'user_id' is an id, so it must be text",
    ),
    "a context field named like a node": (
        [("name: for_you\n", "name: for_you\ncontext: {recent: number}\n")],
        "context.recent",
        "'recent' is also the name of a node",
    ),
    "a model output used as an id": (
        [('score: "p_click + 4 * p_order"', 'score: "number(p_click)"')],
        "score",
        "'p_click' is already a number",
    ),
    "a group of an unknown entity": (
        [("name: product.stats", "name: produkt.stats")],
        "name",
        "unknown entity 'produkt': did you mean 'product'?",
    ),
    "an unknown codec": (
        [("ttl: 7d", "ttl: 7d\ncodec: packd")],
        "codec",
        "did you mean 'packed'?",
    ),
    "a duplicate feature": (
        [("{name: ctr, dtype", "{name: clicks, dtype")],
        "features[1].name",
        "'clicks' is given twice",
    ),
    "a feature named like a key": (
        [("{name: ctr, dtype", "{name: product_id, dtype")],
        "features[1].name",
        "'product_id' is a key of 'product'",
    ),
    "a feature named event_time": (
        [("{name: ctr, dtype", "{name: event_time, dtype")],
        "features[1].name",
        "is reserved for the event time of a row",
    ),
    "a vector of strings": (
        [('dtype: string, default: "?"', "dtype: string, shape: [2]")],
        "features[0].shape",
        "a vector of string",
    ),
    "a default out of range": (
        [("dtype: int16, default: 30", "dtype: int16, default: 40000")],
        "features[0].default",
        "does not fit int16",
    ),
    "a negative default of an unsigned feature": (
        [("dtype: int16, default: 30", "dtype: uint8, default: -1")],
        "features[0].default",
        "does not fit uint8",
    ),
    "a default of the wrong type": (
        [("dtype: int32, default: 0", "dtype: int32, default: none")],
        "features[0].default",
        "must be a number",
    ),
    "a fraction as the default of an integer": (
        [("dtype: int32, default: 0", "dtype: int32, default: 0.5")],
        "features[0].default",
        "does not fit int32",
    ),
    "a number as the default of a string": (
        [('dtype: string, default: "?"', "dtype: string, default: 5")],
        "features[0].default",
        "must be a string",
    ),
    "a number as the default of a bool": (
        [("default: true", "default: 1")],
        "features[2].default",
        "true or false",
    ),
    "a default of the wrong shape": (
        [("dtype: int32, shape: [4]", "dtype: int32, shape: [4], default: [1, 2]")],
        "features[0].default",
        "the shape [4], not [2]",
    ),
    "a default beyond the range of float16": (
        [("dtype: float32, default: 0.5", "dtype: float16, default: 1000000.0")],
        "features[1].default",
        "float16",
    ),
    "a duplicate key": (
        [("keys: [{name: product_id}]", "keys: [{name: a}, {name: a}]")],
        "keys",
        "twice",
    ),
    "an entity named input": (
        [
            (
                "kind: event_type",
                f"kind: entity\nname: input\nkeys: [{{name: a}}]{NEXT_DOCUMENT}kind: event_type",
            )
        ],
        "name",
        "'input' is reserved for the inputs of inferflows",
    ),
    "event types with colliding keys": (
        [("name: wishlist", "name: fast_click")],
        "name",
        "ends with '_' and the name of the event type 'click'",
    ),
    "an unknown generator": (
        [("generator: neighbours", "generator: neighbors")],
        "generator",
        "did you mean 'neighbours'?",
    ),
    "an unknown parameter of a generator": (
        [("decay: 0.5", "dekay: 0.5")],
        "with.dekay",
        "did you mean 'decay'?",
    ),
    "a parameter of a generator out of range": (
        [("decay: 0.5", "decay: 1.5")],
        "with.decay",
        "less than or equal to 1",
    ),
    "a missing parameter of a generator": (
        [("ids: product.similar.ids, ", "")],
        "with",
        "'ids' is missing",
    ),
    "an unknown feature in a generator": (
        [("ids: product.similar.ids", "ids: product.similar.idz")],
        "with.ids",
        "did you mean 'product.similar.ids'?",
    ),
    "an unknown group in a generator": (
        [("weights: product.similar.weights", "weights: product.similr.weights")],
        "with.weights",
        "did you mean 'product.similar.weights'?",
    ),
    "a generator over a list of floats": (
        [("{name: ids, dtype: int32", "{name: ids, dtype: float32")],
        "with.ids",
        "a vector of integers",
    ),
    "a generator over lists of different lengths": (
        [("dtype: float32, shape: [4]", "dtype: float32, shape: [5]")],
        "with.weights",
        "in the same group",
    ),
    "an unknown entity in an inferflow": (
        [("product_id: product}", "product_id: products}")],
        "context.product_id",
        "unknown entity 'products': did you mean 'product'?",
    ),
    "rows by an id missing from the context": (
        [("rows: product_id", "rows: item_id")],
        "rows",
        "'item_id' is not an id of the context",
    ),
    "an unknown feature": (
        [("  - product.stats.ctr", "  - product.stats.crt")],
        "features[2]",
        "did you mean 'product.stats.ctr'?",
    ),
    "an unknown group": (
        [("  - product.stats.ctr", "  - product.stat.ctr")],
        "features[2]",
        "did you mean 'product.stats.ctr'?",
    ),
    "a duplicate column": (
        [("  - product.stats.clicks", "  - product.stats.ctr")],
        "features[3]",
        "is given twice",
    ),
    "a string in the matrix": (
        [("  - product.stats.clicks", "  - product.attrs.title")],
        "features[3]",
        "'product.attrs.title' is a string",
    ),
    "an unknown input": (
        [("  - input.similar", "  - input.similr")],
        "features[0]",
        "did you mean 'similar'?",
    ),
    "an unused input": (
        [("  - input.similar\n", "")],
        "inputs[0]",
        "nothing uses 'similar'",
    ),
    "an entity without a resolved id": (
        [("resolve: {category_id: product.attrs.category_id}\n", "")],
        "features[5]",
        "needs 'category_id' in 'context' or 'resolve'",
    ),
    "an id resolved through a float": (
        [("product.attrs.category_id}", "product.stats.ctr}")],
        "resolve.category_id",
        "must be a single string or integer",
    ),
    "an id resolved through a vector": (
        [("product.attrs.category_id}", "product.similar.ids}")],
        "resolve.category_id",
        "int32[4]",
    ),
    "an id resolved through an unknown feature": (
        [("product.attrs.category_id}", "product.attrs.category}")],
        "resolve.category_id",
        "did you mean 'product.attrs.category_id'?",
    ),
    "an id of the context resolved again": (
        [("resolve: {", "resolve: {user_id: product.attrs.title, ")],
        "resolve.user_id",
        "already an id of the context",
    ),
    "an id resolved through itself": (
        [
            (SHARE_FEATURE, SHARE_FEATURE + "\n  - {name: parent, dtype: int64}"),
            ("product.attrs.category_id}", "category.stats.parent}"),
        ],
        "resolve.category_id",
        "it depends on itself",
    ),
    "an unknown model": (
        [("model: click_model,", "model: clik_model,")],
        "models[0].model",
        "did you mean 'click_model'?",
    ),
    "a duplicate output": (
        [("output: p_order", "output: p_click")],
        "models[1].output",
        "is given twice",
    ),
    "a score with an unknown name": (
        [("4 * p_order", "4 * p_oder")],
        "score",
        "unknown name 'p_oder': did you mean 'p_order'?",
    ),
    "a score with an unknown function": (
        [("4 * p_order", "sigmod(p_order)")],
        "score",
        "did you mean 'sigmoid'?",
    ),
    "a score that is not an expression": (
        [("4 * p_order", "4 *")],
        "score",
        "column",
    ),
    "a score with a number of 400 digits": (
        [("4 * p_order", "9" * 400)],
        "score",
        "",
    ),
    "a score that is text": (
        [('"p_click + 4 * p_order"', "\"'p_click'\"")],
        "score",
        "",
    ),
    "a score whose function lacks an argument": (
        [("4 * p_order", "clip(p_order)")],
        "score",
        "clip",
    ),
    "an input named like an output": (
        [
            ("inputs: [{name: similar,", "inputs: [{name: p_click},{name: similar,"),
            ("  - input.similar", "  - input.similar\n  - input.p_click"),
        ],
        "inputs[0]",
        "p_click",
    ),
    "a node that is not in the graph": (
        [("  seen: [unseen]\n", "")],
        "nodes.seen",
        "not in the graph",
    ),
    "a node that is only in the graph": (
        [("  seen: {op: interactions, with: {event: click, last: 50}}\n", "")],
        "graph.seen",
        "unknown node 'seen'",
    ),
    "an unknown consumer": (
        [("  seen: [unseen]", "  seen: [unsen]")],
        "graph.seen[0]",
        "did you mean 'unseen'?",
    ),
    "a duplicate consumer": (
        [("  seen: [unseen]", "  seen: [unseen, unseen]")],
        "graph.seen[1]",
        "is given twice",
    ),
    "a cycle in a flow": (
        [("  ranked: [top]", "  ranked: [unseen, top]")],
        "graph",
        "cycle: ",
    ),
    "a condition that waits for a later node": (
        [("limit: 10}}", 'limit: 10}, when: "size(ranked) > 0"}')],
        "graph",
        "cycle: ",
    ),
    "a condition that is not an expression": (
        [("limit: 10}}", 'limit: 10}, when: "size(recent) >"}')],
        "nodes.similar.when",
        "column",
    ),
    "two outputs": (
        [("  ranked: [top]", "  ranked: []")],
        "graph",
        "one output (a node that no other node consumes), not 2: 'top', 'ranked'",
    ),
    "an output that is not a candidate list": (
        [
            ("  recent: [similar]", "  recent: []"),
            ("  seen: [unseen]\n", ""),
            ("  similar: [unseen]\n", ""),
            ("  unseen: [ranked]\n", ""),
            ("  ranked: [top]\n", ""),
            ("  top: []\n", ""),
            ("  seen: {op: interactions, with: {event: click, last: 50}}\n", ""),
            ("  similar: {op: candidates, with: {cg_name: similar_products, limit: 10}}\n", ""),
            ("  unseen: {op: filter}\n", ""),
            ("  ranked: {op: infer, with: {model_id: ranker}}\n", ""),
            ("  top: {op: top_k, with: {k: 3}}\n", ""),
        ],
        "nodes.recent",
        "must be candidates",
    ),
    "an unknown op": (
        [("{op: filter}", "{op: fliter}")],
        "nodes.unseen.op",
        "did you mean 'filter'?",
    ),
    "an unknown parameter of a node": (
        [("with: {k: 3}", "with: {n: 3}")],
        "nodes.top.with.n",
        "unknown key 'n'",
    ),
    "a parameter of a node out of range": (
        [("with: {k: 3}", "with: {k: 0}")],
        "nodes.top.with.k",
        "greater than or equal to 1",
    ),
    "an unknown event type": (
        [("event: click, last: 5}", "event: clik, last: 5}")],
        "nodes.recent.with.event",
        "unknown event type 'clik': did you mean 'click'?",
    ),
    "an unknown candidate generator": (
        [("cg_name: similar_products", "cg_name: similar_product")],
        "nodes.similar.with.cg_name",
        "did you mean 'similar_products'?",
    ),
    "an unknown inferflow": (
        [("model_id: ranker", "model_id: rankr")],
        "nodes.ranked.with.model_id",
        "did you mean 'ranker'?",
    ),
    "a `by` column that no node provides": (
        [("with: {k: 3}", "with: {k: 3, by: scores}")],
        "nodes.top.with.by",
        "did you mean 'score'?",
    ),
    "a `by` column of an unscored list": (
        [
            ("  unseen: [ranked]\n  ranked: [top]", "  unseen: [top]"),
            ("  ranked: {op: infer, with: {model_id: ranker}}\n", ""),
        ],
        "nodes.top.with.by",
        "unknown column 'score': there is only 'similar'",
    ),
    "a generator without interactions to start from": (
        [("  recent: [similar]", "  recent: [unseen]")],
        "nodes.similar",
        "must consume one node that gives interactions, not 0",
    ),
    "a filter with nothing to drop": (
        [
            ("  seen: [unseen]\n", ""),
            ("  seen: {op: interactions, with: {event: click, last: 50}}\n", ""),
        ],
        "nodes.unseen",
        "their products are dropped",
    ),
    "a ranking of interactions": (
        [
            ("  unseen: [ranked]", "  unseen: [top]"),
            ("  seen: [unseen]", "  seen: [unseen, ranked]"),
        ],
        "nodes.ranked",
        "can't consume the interactions of 'seen'",
    ),
}
"""Edits that break the shop, each with the path of the problem that they cause.

An edit is a pair of an old and a new text. The last value of an entry is a part of the message.
"""


@pytest.mark.parametrize(("edits", "path", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_shop_is_refused(
    tmp_path: Path, edits: list[tuple[str, str]], path: str, message: str
) -> None:
    problems = problems_of(tmp_path, edited(*edits))
    problem = next((p for p in problems if p.path == path), None)
    assert problem is not None, problems
    assert message in problem.message
    assert problem.file == str(tmp_path / "shop.yaml")
    assert problem.line > 0


def test_a_problem_found_by_a_compiler_has_the_line_of_its_field(tmp_path: Path) -> None:
    catalog = edited(("  - product.stats.ctr", "  - product.stats.crt"))
    (problem,) = problems_of(tmp_path, catalog)
    assert problem.line == line_of(catalog, "  - product.stats.crt")


def test_problems_of_several_objects_are_reported_together(tmp_path: Path) -> None:
    catalog = edited(("decay: 0.5", "decay: 2.0"), ("4 * p_order", "4 * x"))
    assert {problem.path for problem in problems_of(tmp_path, catalog)} == {"with.decay", "score"}


@pytest.mark.parametrize("default", ["100", "-100", "0.25", "0"])
def test_any_number_is_a_valid_default_of_a_float(tmp_path: Path, default: str) -> None:
    catalog = check(tmp_path, edited(("float32, default: 0.5", f"float32, default: {default}")))
    assert catalog.feature("product.stats.ctr")[1].default_array() == float(default)


def test_a_ttl_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, edited(("ttl: 7d", "ttl: 999999999999999d")))
    assert problem.path == "ttl"


def test_a_condition_may_read_a_node_that_its_own_node_does_not_consume(tmp_path: Path) -> None:
    check(tmp_path, edited(("limit: 10}}", 'limit: 10}, when: "size(seen) > 0"}')))
    split = "limit: 10}, when: \"hash(user_id, 'a', 100) < 50 and hour < 5\"}"
    declared = ("name: for_you\n", "name: for_you\ncontext: {hour: number}\n")
    check(tmp_path, edited(("limit: 10}}", split), declared))


def test_an_id_may_be_resolved_through_another_resolved_id(tmp_path: Path) -> None:
    catalog = edited(
        (SHARE_FEATURE, SHARE_FEATURE + "\n  - {name: parent, dtype: int32}"),
        ("resolve: {", "resolve: {shelf_id: category.stats.parent, "),
        ("name: user_category\n", f"name: shelf\nkeys: [{{name: shelf_id}}]{NEXT_DOCUMENT}"
         "kind: feature_group\nname: shelf.stats\nfeatures: [{name: depth, dtype: uint8}]"
         f"{NEXT_DOCUMENT}kind: entity\nname: user_category\n"),
        ("  - user_category.affinity.clicks", "  - shelf.stats.depth"),
    )  # fmt: skip
    check(tmp_path, catalog)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{name: clicks, dtype: int32, default: 0}", "{name: clicks, dtype: int64, default: 0}"),
        ("{name: clicks, dtype: int32, default: 0}", "{name: clicks, dtype: int32, shape: [2]}"),
    ],
    ids=["dtype", "shape"],
)
def test_a_stored_feature_can_not_change_its_type(tmp_path: Path, old: str, new: str) -> None:
    publish(write_shop(tmp_path))
    (problem,) = problems_of(tmp_path, edited((old, new)))
    assert problem.path == "features[0]"
    assert "'clicks' was int32 in schema version 1" in problem.message


def test_a_removed_feature_can_not_return_with_another_type(tmp_path: Path) -> None:
    publish(write_shop(tmp_path), models=False)
    removed = edited(
        ("  - product.stats.clicks\n", ""),
        ("  - {name: clicks, dtype: int32", "  - {name: views, dtype: int32"),
    )
    publish(write_shop(tmp_path, removed), models=False)
    returned = edited(("{name: clicks, dtype: int32", "{name: clicks, dtype: int8"))
    (problem,) = problems_of(tmp_path, returned)
    assert "schema version 1" in problem.message


def test_a_model_of_the_wrong_width_is_refused(tmp_path: Path) -> None:
    write_shop(tmp_path)
    write_linear_model(tmp_path / "models/wide/1/model.onnx", [1.0] * 9, "p_click")
    catalog = edited(("path: click/1/model.onnx", "path: wide/1/model.onnx"))
    (problem,) = problems_of(tmp_path, catalog, models=True)
    assert problem.path == "models[0].model"
    assert "takes 9 columns, but the features make 7" in problem.message


def test_a_model_without_the_named_output_is_refused(tmp_path: Path) -> None:
    catalog = edited(("output: p_click}", "output: p_clck}"), ("p_click + 4", "p_clck + 4"))
    (problem,) = problems_of(tmp_path, catalog, models=True)
    assert problem.path == "models[0].output"
    assert "has no output 'p_clck': did you mean 'p_click'?" in problem.message


def test_a_model_whose_file_is_missing_is_refused(tmp_path: Path) -> None:
    catalog = edited(("path: order/1/model.onnx", "path: order/2/model.onnx"))
    (problem,) = problems_of(tmp_path, catalog, models=True)
    assert problem.path == "path"
    assert problem.line == line_of(catalog, "path: order/2")
    assert "there is no file" in problem.message
