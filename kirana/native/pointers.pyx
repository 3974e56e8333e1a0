# cython: language_level=3, boundscheck=False, wraparound=False
"""Values of a batch where they lie, whatever holds them: a list, an answer, a table."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from kirana.native.borrowed cimport Borrowed
from kirana.native.replies cimport Values

import numpy as np

cdef const char* NOTHING = b""


def sizes_of(values):
    """Return the bytes of each value, -1 where there is none."""
    cdef Pointers pointers = point_to(values)
    cdef Py_ssize_t at
    sizes = np.empty(pointers.count, np.int64)
    cdef int64_t[::1] to = sizes
    for at in range(pointers.count):
        to[at] = -1 if pointers.rows[at] == NULL else pointers.sizes[at]
    return sizes


def copy_values(
    values,
    const Py_ssize_t[::1] positions not None,
    uint8_t[:, ::1] table not None,
    const Py_ssize_t[::1] slots not None,
):
    """Copy the values at some positions into slots of a table: each has the bytes of a row."""
    cdef Pointers pointers = point_to(values)
    cdef Py_ssize_t at, position
    cdef Py_ssize_t size = table.shape[1]
    if positions.shape[0] != slots.shape[0]:
        raise ValueError("each value needs a slot")
    for at in range(positions.shape[0]):
        position = positions[at]
        if not 0 <= position < pointers.count or not 0 <= slots[at] < table.shape[0]:
            raise ValueError("there is no such position")
        if pointers.rows[position] == NULL or pointers.sizes[position] != size:
            raise ValueError("a value is of another size than a row")
        if size:
            memcpy(&table[slots[at], 0], pointers.rows[position], size)


cdef class Pointers:
    """Where values are, and how long: NULL and 0 where there is none."""

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
    cdef Py_ssize_t at
    for at in range(count):
        value = values[at]
        if value is None:
            rows[at] = NULL
            sizes[at] = 0
        elif PyBytes_CheckExact(value):
            rows[at] = PyBytes_AS_STRING(value)
            sizes[at] = PyBytes_GET_SIZE(value)
        else:
            rows[at] = b""
            sizes[at] = 0


cdef void point_to_values(
    Values values, Py_ssize_t count, const char** rows, Py_ssize_t* sizes
):
    cdef Py_ssize_t at
    for at in range(count):
        rows[at] = values.at(at)
        sizes[at] = max(values.sizes[at], 0)


cdef void point_to_borrowed(
    Borrowed values, Py_ssize_t count, const char** rows, Py_ssize_t* sizes
):
    cdef Py_ssize_t at
    cdef Py_ssize_t size = values.size()
    for at in range(count):
        rows[at] = values.at(at)
        sizes[at] = size


cdef int point_to_table(
    const uint8_t[:, :] table, Py_ssize_t count, const char** rows, Py_ssize_t* sizes
) except -1:
    cdef Py_ssize_t at
    cdef const char* first
    if count == 0:
        return 0
    if table.shape[1] > 1 and table.strides[1] != 1:
        raise ValueError("the bytes of a row must lie side by side")
    # of rows without bytes, none is looked at
    first = NOTHING
    if table.shape[1]:
        first = <const char*>&table[0, 0]
    for at in range(count):
        rows[at] = first + at * table.strides[0]
        sizes[at] = table.shape[1]
    return 0
