"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kirana import native
from kirana.edge import Edge
from tests.needs import skip_missing
from tests.support import Shop

COMPILED = native.COMPILED


@pytest.fixture(
    scope="module", params=[pytest.param("compiled", marks=pytest.mark.compiled), "python"]
)
def inner_loops(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the tests of a module twice: with the innermost loops compiled, then in Python."""
    if request.param == "compiled" and not COMPILED:
        skip_missing("kirana.native is not compiled")
    native.COMPILED = request.param == "compiled"
    yield
    native.COMPILED = COMPILED


@pytest.fixture
async def edge(shop: Shop) -> Edge:
    return await shop.edge()
