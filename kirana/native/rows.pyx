# cython: language_level=3, boundscheck=False, wraparound=False
"""Plain packed rows, told apart by one look at each header; of bodies, what is asked for is copied.

A row is plain if it is whole, of a schema version that is known and has no string, and carries
no flag. All others are left to Python.
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
    # so many rows ahead of the one that is copied, its bytes are fetched
    AHEAD = 6

cdef enum:
    OK = 0
    MISSING = 1
    EXPIRED = 2


CHANGED = "the values have changed since they were sorted"


cdef inline uint64_t word(const char* at) noexcept:
    cdef uint64_t found
    memcpy(&found, at, 8)
    return found


cdef class Plain:
    """What `sort_rows` found: status and event time a row, the bodies by schema version.

    `sections` are tuples of a version's number, the positions of its rows (None where they are all
    rows of the batch, in order), their `Bodies`, and whether any cell is null. `odd` are the
    positions of rows that are not plain.
    """

    cdef readonly object status
    cdef readonly object event_time_ms
    cdef readonly list sections
    cdef readonly list odd


cdef class Versions:
    """What tells a plain row of each schema version."""

    cdef Py_ssize_t count
    cdef uint64_t* leading
    cdef uint32_t* strides
    cdef uint32_t* null_starts
    cdef uint32_t* null_bytes

    def __cinit__(self, list versions not None):
        """Of each version: the first 8 bytes of a plain row's header, the size of its body (0
        where it has strings), where the bitmap of nulls is in it, and the bitmap's size.
        """
        cdef Py_ssize_t at
        self.count = len(versions)
        self.leading = <uint64_t*>malloc(max(self.count, 1) * sizeof(uint64_t))
        self.strides = <uint32_t*>malloc(max(self.count, 1) * 3 * sizeof(uint32_t))
        if self.leading == NULL or self.strides == NULL:
            raise MemoryError
        self.null_starts = self.strides + self.count
        self.null_bytes = self.null_starts + self.count
        for at in range(self.count):
            leading, stride, start, size = versions[at]
            self.leading[at] = leading
            self.strides[at] = stride
            self.null_starts[at] = start
            self.null_bytes[at] = size

    def __dealloc__(self):
        free(self.leading)
        free(self.strides)


def sort_rows(values, Versions versions not None, uint64_t now_s):
    """Sort a list of values, `Values` or `Borrowed` (None is missing), or a table with a row a
    value. They stay in use as long as the bodies do.
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
    """Bodies of plain rows of one schema version, still where they came to."""

    cdef object values
    # None where they are all of the values, in order
    cdef const Py_ssize_t[::1] positions
    cdef Py_ssize_t count
    cdef Py_ssize_t stride

    def __len__(self):
        return self.count

    def cells(self, Py_ssize_t start, Py_ssize_t stop):
        """Return the bytes of each body from `start` to `stop`, copied, as a table."""
        if not 0 <= start <= stop <= self.stride:
            raise ValueError("this is not within a body")
        copied = np.empty((self.count, stop - start), np.uint8)
        if stop == start:
            return copied
        if isinstance(self.values, list):
            self.copy_listed(copied, start, stop - start)
        else:
            self.copy(copied, start, stop - start)
        return copied

    cdef int copy_listed(self, uint8_t[:, ::1] to, Py_ssize_t start, Py_ssize_t size) except -1:
        """Copy out of a list, whose values were just made: these the CPU still has."""
        cdef list values = self.values
        cdef Py_ssize_t at, position
        for at in range(self.count):
            position = self.position(at)
            value = values[position] if position < len(values) else None
            if not PyBytes_CheckExact(value) or PyBytes_GET_SIZE(value) != HEADER + self.stride:
                raise ValueError(CHANGED)
            memcpy(&to[at, 0], PyBytes_AS_STRING(value) + HEADER + start, size)
        return 0

    cdef int copy(self, uint8_t[:, ::1] to, Py_ssize_t start, Py_ssize_t size) except -1:
        cdef Py_ssize_t at, position, line
        # anew: what was borrowed may have been copied meanwhile
        cdef Pointers pointers = point_to(self.values)
        for at in range(self.count):
            if at + AHEAD < self.count:
                position = self.position(at + AHEAD)
                if position < pointers.count and pointers.rows[position] != NULL:
                    for line in range(HEADER + start, HEADER + start + size, 64):
                        prefetch(pointers.rows[position] + line)
            position = self.position(at)
            if position >= pointers.count or pointers.sizes[position] != HEADER + self.stride:
                raise ValueError(CHANGED)
            memcpy(&to[at, 0], pointers.rows[position] + HEADER + start, size)
        return 0

    cdef Py_ssize_t position(self, Py_ssize_t at) noexcept:
        return at if self.positions is None else self.positions[at]


cdef Plain sort(
    values, Pointers pointers, uint16_t* numbers, Versions known, uint64_t now_s
):
    cdef Py_ssize_t count = pointers.count
    cdef const char** rows = pointers.rows
    cdef Py_ssize_t* sizes = pointers.sizes
    cdef Py_ssize_t at
    cdef Py_ssize_t versions = known.count
    cdef Py_ssize_t version
    cdef uint32_t expiry, length
    cdef uint64_t first
    cdef Plain found = Plain.__new__(Plain)
    found.status = np.empty(count, np.uint8)
    found.event_time_ms = np.empty(count, np.uint64)
    found.sections = []
    found.odd = []
    cdef uint8_t[::1] status = found.status
    cdef uint64_t[::1] times = found.event_time_ms
    # how many rows the versions have, whether any cell of theirs is null, and the last one of all
    counts = [0] * (versions + 1)
    cdef bytearray nulls = bytearray(versions + 1)
    cdef uint8_t* has_nulls = <uint8_t*>PyByteArray_AS_STRING(nulls)
    cdef const char* bits
    cdef uint8_t of_row
    cdef Py_ssize_t each
    cdef uint16_t last = 0
    cdef Py_ssize_t of_last = 0
    for at in range(count):
        if at + AHEAD < count and rows[at + AHEAD] != NULL:
            prefetch(rows[at + AHEAD])
            prefetch(rows[at + AHEAD] + sizes[at + AHEAD] - 1)
        numbers[at] = 0
        times[at] = 0
        status[at] = MISSING
        if rows[at] == NULL:
            continue
        if sizes[at] < HEADER:
            found.odd.append(at)
            continue
        first = word(rows[at])
        version = (first >> 16) & 0xFFFF
        memcpy(&expiry, rows[at] + 8, 4)
        memcpy(&length, rows[at] + 12, 4)
        if (
            version < 1
            or version > versions
            or first != known.leading[version - 1]
            or length != known.strides[version - 1]
            or sizes[at] != HEADER + <Py_ssize_t>length
            or length == 0
        ):
            found.odd.append(at)
            continue
        times[at] = word(rows[at] + 16)
        if expiry != 0 and expiry <= now_s:
            status[at] = EXPIRED
            continue
        status[at] = OK
        numbers[at] = <uint16_t>version
        bits = rows[at] + HEADER + known.null_starts[version - 1]
        of_row = 0
        for each in range(known.null_bytes[version - 1]):
            of_row |= <uint8_t>bits[each]
        has_nulls[version] |= of_row
        if version != last:
            if last:
                counts[last] += of_last
            last = <uint16_t>version
            of_last = 0
        of_last += 1
    if last:
        counts[last] += of_last
    for version in range(1, versions + 1):
        if counts[version]:
            found.sections.append(
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
    return found


cdef tuple section_of(
    values,
    Py_ssize_t count,
    Py_ssize_t of_version,
    uint16_t* numbers,
    uint16_t version,
    Py_ssize_t stride,
    bint has_nulls,
):
    cdef Py_ssize_t at
    cdef Py_ssize_t to = 0
    cdef Py_ssize_t[::1] positions
    cdef Bodies bodies = Bodies.__new__(Bodies)
    found = None
    if of_version != count:
        found = np.empty(of_version, np.intp)
        positions = found
        for at in range(count):
            if numbers[at] == version:
                positions[to] = at
                to += 1
    bodies.values, bodies.positions = values, found
    bodies.count, bodies.stride = of_version, stride
    return version, found, bodies, has_nulls
