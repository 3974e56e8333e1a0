# cython: language_level=3, boundscheck=False, wraparound=False
"""Rows that are read from the table of a cache without a copy."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

import numpy as np


cdef class Borrowed:
    """A sequence of rows (`bytes`) that are still in the table of a cache.

    `slots` holds the numbers of the rows in `table`. Before the cache changes the table, it must
    call `detach`, which copies the rows.
    """

    def __init__(self, const uint8_t[:, ::1] table not None, const Py_ssize_t[::1] slots not None):
        """Borrow rows. Raise `ValueError` for a slot that is not in the table."""
        cdef Py_ssize_t i
        for i in range(slots.shape[0]):
            if not 0 <= slots[i] < table.shape[0]:
                raise ValueError(f"slot {slots[i]} is not in the table of {table.shape[0]} rows")
        self.table, self.slots, self.count = table, slots, slots.shape[0]

    def detach(self):
        """Copy the rows out of the table of the cache. No-op if they are copied already."""
        if self.slots is not None:
            self.table, self.slots = self.rows(), None

    def rows(self):
        """Return a copy of the rows as a table, `uint8[rows, bytes]`."""
        cdef Py_ssize_t i
        cdef Py_ssize_t size = self.table.shape[1]
        copied = np.empty((self.count, size), np.uint8)
        cdef uint8_t[:, ::1] to = copied
        if size:
            for i in range(self.count):
                memcpy(&to[i, 0], self.address_of(i), size)
        return copied

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t position):
        if position < 0:
            position += self.count
        if not 0 <= position < self.count:
            raise IndexError(position)
        return PyBytes_FromStringAndSize(self.address_of(position), self.size())

    cdef Py_ssize_t size(self) noexcept:
        """Return the size of a row in bytes."""
        return self.table.shape[1]

    cdef const char* address_of(self, Py_ssize_t position) noexcept:
        """Return a pointer to the row at `position`. Do not read from it if rows have no bytes."""
        if not self.table.shape[1]:
            return b""
        return <const char*>&self.table[position if self.slots is None else self.slots[position], 0]
