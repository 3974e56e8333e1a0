from __future__ import annotations

import numpy as np
import pytest

from kirana.native import slots


def test_fresh_rows_are_taken_and_counted() -> None:
    table = np.arange(12, dtype=np.uint8).reshape(4, 3)
    loaded = np.array([5.0, 9.0, 5.1, 7.0])
    uses = np.zeros(4, dtype=np.uint32)
    index = {"a": 0, "b": 1, "c": 2, "d": 3}
    found, rows = slots.take(index, ["d", "a", "x", "b"], loaded, 5.0, uses, table)
    assert found.tolist() == [3, -1, -1, 1]
    assert rows.tolist() == [[9, 10, 11], [3, 4, 5]]
    assert uses.tolist() == [0, 1, 0, 1]
    table[3] = 0
    assert rows[0].tolist() == [9, 10, 11]


def test_rows_without_bytes_are_found() -> None:
    empty = np.empty((2, 0), dtype=np.uint8)
    found, rows = slots.take({"a": 1}, ["a"], np.ones(2), 0.0, np.zeros(2, np.uint32), empty)
    assert (found.tolist(), rows.shape) == ([1], (1, 0))


def test_a_key_that_can_not_be_looked_up_is_an_error() -> None:
    with pytest.raises(TypeError):
        slots.take(
            {"a": 0}, [[]], np.ones(1), 0.0, np.zeros(1, np.uint32), np.zeros((1, 1), np.uint8)
        )  # type: ignore[list-item]
