"""Tests that reach the inmost loops run twice: with the loops compiled, and in Python."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kirana import native
from kirana.edge import Edge
from tests.needs import lacks
from tests.support import Shop

COMPILED = native.COMPILED


@pytest.fixture(
    scope="module", params=[pytest.param("compiled", marks=pytest.mark.compiled), "python"]
)
def inmost_loops(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "compiled" and not COMPILED:
        lacks("kirana.native is not compiled")
    native.COMPILED = request.param == "compiled"
    yield
    native.COMPILED = COMPILED


@pytest.fixture
async def edge(shop: Shop) -> Edge:
    return await shop.edge()
