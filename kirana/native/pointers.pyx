# cython: language_level=3, boundscheck=False, wraparound=False
"""Pointers to the values of a batch: a list, replies of Redis, rows of a cache, or a table."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from kirana.native.borrowed cimport Borrowed
from kirana.native.replies cimport Values

import numpy as np

cdef const char* NO_BYTES = b""


def sizes_of(values):
    """Return the size of each value in bytes, -1 for None. The result is `int64[values]`."""
    cdef Pointers pointers = point_to(values)
    cdef Py_ssize_t i
    sizes = np.empty(pointers.count, np.int64)
    cdef int64_t[::1] to = sizes
    for i in range(pointers.count):
        to[i] = -1 if pointers.rows[i] == NULL else pointers.sizes[i]
    return sizes


def copy_values(
    values,
    const Py_ssize_t[::1] positions not None,
    uint8_t[:, ::1] table not None,
    const Py_ssize_t[::1] slots not None,
):
    """Copy the values at `positions` into the rows of `table` with the numbers `slots`.

    Raise `ValueError` if a value is None or does not have the size of a row of the table, or if a
    position or slot does not exist.
    """
    cdef Pointers pointers = point_to(values)
    cdef Py_ssize_t i, position
    cdef Py_ssize_t size = table.shape[1]
    if positions.shape[0] != slots.shape[0]:
        raise ValueError(f"expected {positions.shape[0]} slots, not {slots.shape[0]}")
    for i in range(positions.shape[0]):
        position = positions[i]
        if not 0 <= position < pointers.count or not 0 <= slots[i] < table.shape[0]:
            raise ValueError(f"there is no position {position} or no slot {slots[i]}")
        if pointers.rows[position] == NULL or pointers.sizes[position] != size:
            raise ValueError(f"the value at {position} is None or does not have {size} bytes")
        if size:
            memcpy(&table[slots[i], 0], pointers.rows[position], size)


cdef class Pointers:
    """Pointers to values, and the sizes of the values in bytes: NULL and 0 for None.

    The pointers are valid only while the object with the values exists and does not change.
    """

    def __cinit__(self, Py_ssize_t count):
        self.rows = <const char**>malloc(max(count, 1) * sizeof(char*))
        self.sizes = <Py_ssize_t*>malloc(max(count, 1) * sizeof(Py_ssize_t))
        if self.rows == NULL or self.sizes == NULL:
            raise MemoryError
        self.count = count

    def __dealloc__(self):
        free(self.rows)
        free(self.sizes)


cdef Pointers point_to(values):
    """Return pointers to the values of a list, `Values`, `Borrowed`, or a table of bytes.

    Elements of a list that are neither `bytes` nor None count as empty values.
    """
    cdef Pointers to = Pointers.__new__(Pointers, len(values))
    if isinstance(values, list):
        point_to_list(values, to.count, to.rows, to.sizes)
    elif isinstance(values, Values):
        point_to_values(values, to.count, to.rows, to.sizes)
    elif isinstance(values, Borrowed):
        point_to_borrowed(values, to.count, to.rows, to.sizes)
    else:
        point_to_table(values, to.count, to.rows, to.sizes)
    return to


cdef void point_to_list(
    list values, Py_ssize_t count, const char** rows, Py_ssize_t* sizes
):
    cdef Py_ssize_t i
    for i in range(count):
        value = values[i]
        if value is None:
            rows[i] = NULL
            sizes[i] = 0
        elif PyBytes_CheckExact(value):
            rows[i] = PyBytes_AS_STRING(value)
            sizes[i] = PyBytes_GET_SIZE(value)
        else:
            rows[i] = b""
            sizes[i] = 0


cdef void point_to_values(
    Values values, Py_ssize_t count, const char** rows, Py_ssize_t* sizes
):
    cdef Py_ssize_t i
    for i in range(count):
        rows[i] = values.address_of(i)
        sizes[i] = max(values.sizes[i], 0)


cdef void point_to_borrowed(
    Borrowed values, Py_ssize_t count, const char** rows, Py_ssize_t* sizes
):
    cdef Py_ssize_t i
    cdef Py_ssize_t size = values.size()
    for i in range(count):
        rows[i] = values.address_of(i)
        sizes[i] = size


cdef int point_to_table(
    const uint8_t[:, :] table, Py_ssize_t count, const char** rows, Py_ssize_t* sizes
) except -1:
    cdef Py_ssize_t i
    cdef const char* first
    if count == 0:
        return 0
    if table.shape[1] > 1 and table.strides[1] != 1:
        raise ValueError("the bytes of a row must be side by side")
    # If rows have no bytes, `table[0, 0]` does not exist.
    first = NO_BYTES
    if table.shape[1]:
        first = <const char*>&table[0, 0]
    for i in range(count):
        rows[i] = first + i * table.strides[0]
        sizes[i] = table.shape[1]
    return 0
