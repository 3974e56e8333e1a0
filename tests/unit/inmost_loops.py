"""Runs the tests of a folder twice: with the inmost loops compiled, and in Python."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kirana import native

COMPILED = native.COMPILED


@pytest.fixture(autouse=True, scope="module", params=["compiled", "python"])
def inmost_loops(request: pytest.FixtureRequest) -> Iterator[None]:
    assert COMPILED, "kirana.native is not compiled: is there a C compiler?"
    native.COMPILED = request.param == "compiled"
    yield
    native.COMPILED = COMPILED
