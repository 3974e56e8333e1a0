# cython: language_level=3, boundscheck=False, wraparound=False
"""Decodes plain packed rows. Bytes of their bodies are copied only when they are needed.

A row is plain if its header is valid and has no flags, and its schema version is known and has no
strings. Python code decodes the others.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_CheckExact
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from kirana.native.prefetch cimport prefetch
from kirana.native.pointers cimport Pointers, point_to

import numpy as np

cdef enum:
    HEADER = 24

cdef enum:
    # The loops prefetch the row that comes this many rows after the current one.
    AHEAD = 6

cdef enum:
    OK = 0
    MISSING = 1
    EXPIRED = 2


CHANGED = "the values have changed since they were sorted"


cdef inline uint64_t word(const char* start) noexcept:
    """Return the 8 bytes at `start` as a number."""
    cdef uint64_t result
    memcpy(&result, start, 8)
    return result


cdef class SortedRows:
    """The result of `sort_rows`.

    `status` and `event_time_ms` have one element per row. `sections` has a tuple per schema version
    of rows that are OK: its number, the positions of its rows (None if these are all rows of the
    batch), their `Bodies`, and whether any cell is null. `other_rows` holds the positions of the
    rows that are not plain. Their status is `MISSING`, and their event time is 0.
    """

    cdef readonly object status
    cdef readonly object event_time_ms
    cdef readonly list sections
    cdef readonly list other_rows


cdef class Versions:
    """The values by which plain rows are recognized, for each schema version of a group."""

    cdef Py_ssize_t count
    cdef uint64_t* leading
    cdef uint32_t* strides
    cdef uint32_t* null_starts
    cdef uint32_t* null_bytes

    def __cinit__(self, list versions not None):
        """Take one tuple per schema version, from version 1 on.

        Each tuple holds the first 8 bytes of the header of a plain row as a number, the size of
        the body (0 if the version has strings), and the position and size of the null bitmap in
        the body.
        """
        cdef Py_ssize_t i
        self.count = len(versions)
        self.leading = <uint64_t*>malloc(max(self.count, 1) * sizeof(uint64_t))
        self.strides = <uint32_t*>malloc(max(self.count, 1) * 3 * sizeof(uint32_t))
        if self.leading == NULL or self.strides == NULL:
            raise MemoryError
        self.null_starts = self.strides + self.count
        self.null_bytes = self.null_starts + self.count
        for i in range(self.count):
            leading, stride, start, size = versions[i]
            self.leading[i] = leading
            self.strides[i] = stride
            self.null_starts[i] = start
            self.null_bytes[i] = size

    def __dealloc__(self):
        free(self.leading)
        free(self.strides)


def sort_rows(values, Versions versions not None, uint64_t now_s):
    """Check the headers of a batch, and sort its rows by schema version.

    `values` is a list, `Values`, `Borrowed`, or a table, `uint8[rows, bytes]`. An element may be
    None, for a missing row. The `Bodies` in the result refer to `values`, which must not change
    while they are in use.
    """
    if isinstance(values, list) and not PyList_CheckExact(values):
        values = list(values)
    cdef Pointers pointers = point_to(values)
    cdef uint16_t* numbers = <uint16_t*>malloc(max(pointers.count, 1) * sizeof(uint16_t))
    if numbers == NULL:
        raise MemoryError
    try:
        return sort(values, pointers, numbers, versions, now_s)
    finally:
        free(numbers)


cdef class Bodies:
    """The bodies of plain rows of one schema version, still in the values that were decoded."""

    cdef object values
    # The positions of the rows in `values`. None if they are all values, in order.
    cdef const Py_ssize_t[::1] positions
    cdef Py_ssize_t count
    cdef Py_ssize_t stride

    def __len__(self):
        return self.count

    def cells(self, Py_ssize_t start, Py_ssize_t stop):
        """Return a copy of the bytes from `start` to `stop` of all bodies, as a table.

        Raise `ValueError` if the bytes are not within the body, or if the size of a value has
        changed.
        """
        if not 0 <= start <= stop <= self.stride:
            raise ValueError(f"bytes {start} to {stop} are not within a body of {self.stride}")
        copied = np.empty((self.count, stop - start), np.uint8)
        if stop == start:
            return copied
        if isinstance(self.values, list):
            self.copy_listed(copied, start, stop - start)
        else:
            self.copy(copied, start, stop - start)
        return copied

    cdef int copy_listed(self, uint8_t[:, ::1] to, Py_ssize_t start, Py_ssize_t size) except -1:
        """Copy from a list, without prefetching."""
        cdef list values = self.values
        cdef Py_ssize_t i, position
        for i in range(self.count):
            position = self.position(i)
            value = values[position] if position < len(values) else None
            if not PyBytes_CheckExact(value) or PyBytes_GET_SIZE(value) != HEADER + self.stride:
                raise ValueError(CHANGED)
            memcpy(&to[i, 0], PyBytes_AS_STRING(value) + HEADER + start, size)
        return 0

    cdef int copy(self, uint8_t[:, ::1] to, Py_ssize_t start, Py_ssize_t size) except -1:
        """Copy from values that are not a list, and prefetch the rows that follow."""
        cdef Py_ssize_t i, position, line
        # `sort_rows` had pointers too, but `Borrowed` rows may have moved since.
        cdef Pointers pointers = point_to(self.values)
        for i in range(self.count):
            if i + AHEAD < self.count:
                position = self.position(i + AHEAD)
                if position < pointers.count and pointers.rows[position] != NULL:
                    for line in range(HEADER + start, HEADER + start + size, 64):
                        prefetch(pointers.rows[position] + line)
            position = self.position(i)
            if position >= pointers.count or pointers.sizes[position] != HEADER + self.stride:
                raise ValueError(CHANGED)
            memcpy(&to[i, 0], pointers.rows[position] + HEADER + start, size)
        return 0

    cdef Py_ssize_t position(self, Py_ssize_t i) noexcept:
        """Return the position in the batch of body i."""
        return i if self.positions is None else self.positions[i]


cdef SortedRows sort(
    values, Pointers pointers, uint16_t* numbers, Versions known, uint64_t now_s
):
    """Do the work of `sort_rows`. `numbers` has space for one schema version per row."""
    cdef Py_ssize_t count = pointers.count
    cdef const char** rows = pointers.rows
    cdef Py_ssize_t* sizes = pointers.sizes
    cdef Py_ssize_t i
    cdef Py_ssize_t versions = known.count
    cdef Py_ssize_t version
    cdef uint32_t expiry, length
    cdef uint64_t first
    cdef SortedRows result = SortedRows.__new__(SortedRows)
    result.status = np.empty(count, np.uint8)
    result.event_time_ms = np.empty(count, np.uint64)
    result.sections = []
    result.other_rows = []
    cdef uint8_t[::1] status = result.status
    cdef uint64_t[::1] times = result.event_time_ms
    # Count the rows of each version, and record whether any of their cells is null. Rows of the
    # same version often follow one another. They are counted in `repeats` first, because adding to
    # a list is slower.
    counts = [0] * (versions + 1)
    cdef bytearray nulls = bytearray(versions + 1)
    cdef uint8_t* has_nulls = <uint8_t*>PyByteArray_AS_STRING(nulls)
    cdef const char* bits
    cdef uint8_t null_bits
    cdef Py_ssize_t offset
    cdef uint16_t last = 0
    cdef Py_ssize_t repeats = 0
    for i in range(count):
        if i + AHEAD < count and rows[i + AHEAD] != NULL:
            prefetch(rows[i + AHEAD])
            prefetch(rows[i + AHEAD] + sizes[i + AHEAD] - 1)
        numbers[i] = 0
        times[i] = 0
        status[i] = MISSING
        if rows[i] == NULL:
            continue
        if sizes[i] < HEADER:
            result.other_rows.append(i)
            continue
        first = word(rows[i])
        version = (first >> 16) & 0xFFFF
        memcpy(&expiry, rows[i] + 8, 4)
        memcpy(&length, rows[i] + 12, 4)
        if (
            version < 1
            or version > versions
            or first != known.leading[version - 1]
            or length != known.strides[version - 1]
            or sizes[i] != HEADER + <Py_ssize_t>length
            or length == 0
        ):
            result.other_rows.append(i)
            continue
        times[i] = word(rows[i] + 16)
        if expiry != 0 and expiry <= now_s:
            status[i] = EXPIRED
            continue
        status[i] = OK
        numbers[i] = <uint16_t>version
        bits = rows[i] + HEADER + known.null_starts[version - 1]
        null_bits = 0
        for offset in range(known.null_bytes[version - 1]):
            null_bits |= <uint8_t>bits[offset]
        has_nulls[version] |= null_bits
        if version != last:
            if last:
                counts[last] += repeats
            last = <uint16_t>version
            repeats = 0
        repeats += 1
    if last:
        counts[last] += repeats
    for version in range(1, versions + 1):
        if counts[version]:
            result.sections.append(
                section_of(
                    values,
                    count,
                    counts[version],
                    numbers,
                    <uint16_t>version,
                    known.strides[version - 1],
                    has_nulls[version],
                )
            )
    return result


cdef tuple section_of(
    values,
    Py_ssize_t count,
    Py_ssize_t row_count,
    uint16_t* numbers,
    uint16_t version,
    Py_ssize_t stride,
    bint has_nulls,
):
    """Return the section of one schema version, which `row_count` of the `count` rows have."""
    cdef Py_ssize_t i
    cdef Py_ssize_t to = 0
    cdef Py_ssize_t[::1] positions
    cdef Bodies bodies = Bodies.__new__(Bodies)
    row_positions = None
    if row_count != count:
        row_positions = np.empty(row_count, np.intp)
        positions = row_positions
        for i in range(count):
            if numbers[i] == version:
                positions[to] = i
                to += 1
    bodies.values, bodies.positions = values, row_positions
    bodies.count, bodies.stride = row_count, stride
    return version, row_positions, bodies, has_nulls
