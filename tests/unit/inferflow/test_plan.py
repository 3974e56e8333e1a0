"""An inferflow compiled: which entities are read when, and where each feature's columns go."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, Problem
from kirana.inferflow.plan import EntityRead, Plan, compile_inferflow
from kirana.serving.checks import checks_of
from tests.support import SHOP, write_shop

NESTED = """
---
kind: entity
name: shelf
keys: [{name: shelf_id}]
---
kind: feature_group
name: shelf.stats
features: [{name: depth, dtype: uint8}, {name: vector, dtype: float32, shape: [3]}]
---
kind: feature_group
name: category.place
features: [{name: shelf_id, dtype: string}]
"""


def compiled(folder: Path, *edits: tuple[str, str], more: str = "") -> Plan:
    text = SHOP + more
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    catalog = DirectoryCatalog(write_shop(folder, text), checks_of()).check().catalog
    return compile_inferflow(catalog.inferflows["ranker"], catalog)


def reads(plan: Plan) -> list[dict[str, EntityRead]]:
    return [{read.entity.name: read for read in stage} for stage in plan.stages]


def test_what_the_request_gives_is_read_first_then_what_was_resolved(tmp_path: Path) -> None:
    first, second = reads(compiled(tmp_path))
    assert set(first) == {"user", "product"}
    assert set(second) == {"category", "user_category"}
    assert first["product"].resolves == (("category_id", "attrs.category_id"),)
    assert first["user"].resolves == ()
    assert second["user_category"].ids == ("user_id", "category_id")


def test_columns_stand_in_the_order_of_the_features(tmp_path: Path) -> None:
    plan = compiled(tmp_path)
    assert plan.columns == (
        "input.similar",
        "user.profile.age",
        "product.stats.ctr",
        "product.stats.clicks",
        "product.attrs.in_stock",
        "category.stats.share",
        "user_category.affinity.clicks",
    )
    assert plan.inputs == {"similar": 0.0}
    assert plan.input_positions == {"similar": 0}
    first, second = reads(plan)
    assert first["product"].matrix == ("stats.ctr", "stats.clicks", "attrs.in_stock")
    assert first["product"].positions.tolist() == [2, 3, 4]
    assert second["user_category"].positions.tolist() == [6]


def test_every_column_belongs_to_one_read_or_input(tmp_path: Path) -> None:
    plan = compiled(tmp_path)
    positions = [at for stage in plan.stages for read in stage for at in read.positions.tolist()]
    assert sorted([*positions, *plan.input_positions.values()]) == list(range(len(plan.columns)))


def test_columns_side_by_side_are_one_slice(tmp_path: Path) -> None:
    first, second = reads(compiled(tmp_path))
    assert first["product"].side_by_side == slice(2, 5)
    assert second["category"].side_by_side == slice(5, 6)


def test_columns_that_are_scattered_are_no_slice(tmp_path: Path) -> None:
    first, _ = reads(
        compiled(
            tmp_path,
            ("  - input.similar\n  - user.profile.age\n", "  - user.profile.age\n"),
            ("  - product.stats.clicks\n", "  - input.similar\n  - product.stats.clicks\n"),
        )
    )
    assert first["product"].positions.tolist() == [1, 3, 4]
    assert first["product"].side_by_side is None


def test_an_entity_that_is_only_passed_through_is_read_without_columns(tmp_path: Path) -> None:
    plan = compiled(
        tmp_path,
        ("  - product.stats.ctr\n  - product.stats.clicks\n  - product.attrs.in_stock\n", ""),
    )
    first, _ = reads(plan)
    assert first["product"].matrix == ()
    assert first["product"].side_by_side is None


def test_a_vector_takes_a_column_for_each_element(tmp_path: Path) -> None:
    plan = compiled(
        tmp_path,
        ("  - product.stats.clicks", "  - product.similar.weights\n  - product.stats.clicks"),
    )
    assert plan.columns[3:7] == tuple(f"product.similar.weights[{at}]" for at in range(4))
    assert reads(plan)[0]["product"].positions.tolist() == [2, 3, 4, 5, 6, 7, 8]


def test_resolved_ids_may_resolve_others(tmp_path: Path) -> None:
    plan = compiled(
        tmp_path,
        ("resolve: {", "resolve: {shelf_id: category.place.shelf_id, "),
        ("  - category.stats.share\n", "  - shelf.stats.vector\n  - shelf.stats.depth\n"),
        more=NESTED,
    )
    first, second, third = reads(plan)
    assert first["product"].resolves == (("category_id", "attrs.category_id"),)
    assert second["category"].resolves == (("shelf_id", "place.shelf_id"),)
    assert second["category"].matrix == ()
    assert set(third) == {"shelf"}
    assert third["shelf"].positions.tolist() == [5, 6, 7, 8]


def test_an_entity_is_named_by_any_id_of_the_context(tmp_path: Path) -> None:
    """`item` stands for a product, whose key is called product_id."""
    plan = compiled(
        tmp_path,
        ("product_id: product}", "item: product}"),
        ("rows: product_id", "rows: item"),
    )
    assert tuple(plan.context) == ("user_id", "item")
    assert reads(plan)[0]["product"].ids == ("item",)


def test_a_plan_knows_its_models_and_score(tmp_path: Path) -> None:
    plan = compiled(tmp_path)
    assert [(call.model, call.output) for call in plan.calls] == [
        ("click_model", "p_click"),
        ("order_model", "p_order"),
    ]
    assert plan.score.names == {"p_click", "p_order"}
    assert plan.score({"p_click": 1.0, "p_order": 2.0}) == 9.0


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return DirectoryCatalog(write_shop(tmp_path), checks_of()).check().catalog


def problems_of(catalog: Catalog, **changes: object) -> list[Problem]:
    broken = catalog.inferflows["ranker"].model_copy(update=changes)
    with pytest.raises(CatalogError) as caught:
        compile_inferflow(broken, catalog)
    return list(caught.value.problems)


def test_all_problems_come_together(catalog: Catalog) -> None:
    found = problems_of(
        catalog, rows="item", resolve={"category_id": "product.stats.ctr"}, score="x"
    )
    assert {"rows", "resolve.category_id", "score"} <= {problem.path for problem in found}


def test_a_matrix_without_columns_is_refused(catalog: Catalog) -> None:
    assert "features" in {each.path for each in problems_of(catalog, features=[], inputs=[])}


def test_two_ids_that_resolve_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        compiled(
            tmp_path,
            ("resolve: {category_id: product.attrs.category_id}",
             "resolve: {shelf_id: category.place.shelf_id, category_id: shelf.stats.depth}"),
            more=NESTED,
        )  # fmt: skip
    assert {"resolve.shelf_id", "resolve.category_id"} <= {p.path for p in caught.value.problems}
    assert all(
        "depend on each other" in p.message
        for p in caught.value.problems
        if p.path.startswith("res")
    )


def test_one_entity_by_two_ids_of_the_context_is_refused(catalog: Catalog) -> None:
    """A feature is named by its entity, so that only one of two products could be meant."""
    found = problems_of(
        catalog,
        context={"user_id": "user", "left": "product", "right": "product"},
        rows="right",
    )
    assert any(problem.path.startswith("context.") for problem in found)
