"""Compiling an inferflow: stages of reads, and the positions of columns in the matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, Problem
from kirana.inferflow.plan import EntityRead, Plan, compile_inferflow
from kirana.serving.checks import catalog_checks
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
    """Compile the shop's inferflow after the edits, which are pairs of old and new text."""
    text = SHOP + more
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    catalog = DirectoryCatalog(write_shop(folder, text), catalog_checks()).check().catalog
    return compile_inferflow(catalog.inferflows["ranker"], catalog)


def reads(plan: Plan) -> list[dict[str, EntityRead]]:
    return [{read.entity.name: read for read in stage} for stage in plan.stages]


def test_entities_of_the_request_are_read_before_resolved_entities(tmp_path: Path) -> None:
    first, second = reads(compiled(tmp_path))
    assert set(first) == {"user", "product"}
    assert set(second) == {"category", "user_category"}
    assert first["product"].resolves == (("category_id", "attrs.category_id"),)
    assert first["user"].resolves == ()
    assert second["user_category"].ids == ("user_id", "category_id")


def test_columns_are_in_the_order_of_the_features(tmp_path: Path) -> None:
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


def test_every_column_belongs_to_exactly_one_read_or_input(tmp_path: Path) -> None:
    plan = compiled(tmp_path)
    positions = [
        position for stage in plan.stages for read in stage for position in read.positions.tolist()
    ]
    assert sorted([*positions, *plan.input_positions.values()]) == list(range(len(plan.columns)))


def test_adjacent_columns_of_a_read_are_a_slice(tmp_path: Path) -> None:
    first, second = reads(compiled(tmp_path))
    assert first["product"].column_slice == slice(2, 5)
    assert second["category"].column_slice == slice(5, 6)


def test_scattered_columns_of_a_read_are_not_a_slice(tmp_path: Path) -> None:
    first, _ = reads(
        compiled(
            tmp_path,
            ("  - input.similar\n  - user.profile.age\n", "  - user.profile.age\n"),
            ("  - product.stats.clicks\n", "  - input.similar\n  - product.stats.clicks\n"),
        )
    )
    assert first["product"].positions.tolist() == [1, 3, 4]
    assert first["product"].column_slice is None


def test_an_entity_that_only_resolves_ids_is_read_without_columns(tmp_path: Path) -> None:
    plan = compiled(
        tmp_path,
        ("  - product.stats.ctr\n  - product.stats.clicks\n  - product.attrs.in_stock\n", ""),
    )
    first, _ = reads(plan)
    assert first["product"].matrix == ()
    assert first["product"].column_slice is None


def test_a_vector_takes_a_column_for_each_element(tmp_path: Path) -> None:
    plan = compiled(
        tmp_path,
        ("  - product.stats.clicks", "  - product.similar.weights\n  - product.stats.clicks"),
    )
    assert plan.columns[3:7] == tuple(f"product.similar.weights[{i}]" for i in range(4))
    assert reads(plan)[0]["product"].positions.tolist() == [2, 3, 4, 5, 6, 7, 8]


def test_a_resolved_id_may_resolve_another_id(tmp_path: Path) -> None:
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


def test_an_id_of_the_context_may_differ_from_the_key_of_its_entity(tmp_path: Path) -> None:
    """The context calls the product `item` although the key of the entity is `product_id`."""
    plan = compiled(
        tmp_path,
        ("product_id: product}", "item: product}"),
        ("rows: product_id", "rows: item"),
    )
    assert tuple(plan.context) == ("user_id", "item")
    assert reads(plan)[0]["product"].ids == ("item",)


def test_a_plan_has_its_model_calls_and_its_score(tmp_path: Path) -> None:
    plan = compiled(tmp_path)
    assert [(call.model, call.output) for call in plan.calls] == [
        ("click_model", "p_click"),
        ("order_model", "p_order"),
    ]
    assert plan.score.names == {"p_click", "p_order"}
    assert plan.score({"p_click": 1.0, "p_order": 2.0}) == 9.0


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return DirectoryCatalog(write_shop(tmp_path), catalog_checks()).check().catalog


def problems_of(catalog: Catalog, **changes: object) -> list[Problem]:
    broken = catalog.inferflows["ranker"].model_copy(update=changes)
    with pytest.raises(CatalogError) as caught:
        compile_inferflow(broken, catalog)
    return list(caught.value.problems)


def test_all_problems_are_reported_together(catalog: Catalog) -> None:
    problems = problems_of(
        catalog, rows="item", resolve={"category_id": "product.stats.ctr"}, score="x"
    )
    assert {"rows", "resolve.category_id", "score"} <= {problem.path for problem in problems}


def test_a_matrix_without_columns_is_refused(catalog: Catalog) -> None:
    problems = problems_of(catalog, features=[], inputs=[])
    assert "features" in {problem.path for problem in problems}


def test_two_ids_that_resolve_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        compiled(
            tmp_path,
            ("resolve: {category_id: product.attrs.category_id}",
             "resolve: {shelf_id: category.place.shelf_id, category_id: shelf.stats.depth}"),
            more=NESTED,
        )  # fmt: skip
    problems = caught.value.problems
    assert {"resolve.shelf_id", "resolve.category_id"} <= {problem.path for problem in problems}
    assert all(
        "it depends on itself" in problem.message
        for problem in problems
        if problem.path.startswith("res")
    )


def test_two_ids_of_the_same_entity_in_the_context_are_refused(catalog: Catalog) -> None:
    """Features are named by entity, so they would not say which of the two products is meant."""
    problems = problems_of(
        catalog,
        context={"user_id": "user", "left": "product", "right": "product"},
        rows="right",
    )
    assert any(problem.path.startswith("context.") for problem in problems)
