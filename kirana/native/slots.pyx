# cython: language_level=3, boundscheck=False, wraparound=False
"""Rows of the cache by their keys: found, found fresh, counted and copied in one pass."""

from cpython.long cimport PyLong_AsSsize_t
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

import numpy as np


cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(dict of, object key) except? NULL


def take(
    dict index not None,
    list keys not None,
    const double[::1] loaded,
    double oldest,
    uint32_t[::1] uses,
    const uint8_t[:, ::1] table,
):
    """Return for each key its slot, -1 where it has none or its row is stale, and the rows
    that were found side by side, as a table of their own.
    """
    cdef Py_ssize_t count = len(keys)
    cdef Py_ssize_t size = table.shape[1]
    cdef Py_ssize_t at, slot
    cdef Py_ssize_t hits = 0
    cdef PyObject* value
    slots = np.empty(count, np.intp)
    rows = np.empty((count, size), np.uint8)
    cdef Py_ssize_t[::1] slot_of = slots
    cdef uint8_t[:, ::1] found = rows
    for at in range(count):
        slot_of[at] = -1
        value = PyDict_GetItemWithError(index, keys[at])
        if value == NULL:
            continue
        slot = PyLong_AsSsize_t(<object>value)
        if loaded[slot] <= oldest:
            continue
        slot_of[at] = slot
        uses[slot] += 1
        if size:
            memcpy(&found[hits, 0], &table[slot, 0], size)
        hits += 1
    return slots, rows if hits == count else rows[:hits]
