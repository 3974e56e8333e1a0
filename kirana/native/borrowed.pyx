# cython: language_level=3, boundscheck=False, wraparound=False
"""Rows that a cache lends out of its table, without a copy."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

import numpy as np


cdef class Borrowed:
    """Rows of a table by their slots, where they lie. A sequence of `bytes`.

    Who changes the table calls `keep` before: then they are copied.
    """

    def __init__(self, const uint8_t[:, ::1] table not None, const Py_ssize_t[::1] slots not None):
        cdef Py_ssize_t at
        for at in range(slots.shape[0]):
            if not 0 <= slots[at] < table.shape[0]:
                raise ValueError("there is no such row")
        self.table, self.slots, self.count = table, slots, slots.shape[0]

    def keep(self):
        """Copy the rows, if they are not yet."""
        if self.slots is not None:
            self.table, self.slots = self.rows(), None

    def rows(self):
        """Return a copy of the rows, as a table."""
        cdef Py_ssize_t at
        cdef Py_ssize_t size = self.table.shape[1]
        copied = np.empty((self.count, size), np.uint8)
        cdef uint8_t[:, ::1] to = copied
        if size:
            for at in range(self.count):
                memcpy(&to[at, 0], self.at(at), size)
        return copied

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t position):
        if position < 0:
            position += self.count
        if not 0 <= position < self.count:
            raise IndexError(position)
        return PyBytes_FromStringAndSize(self.at(position), self.size())

    cdef Py_ssize_t size(self) noexcept:
        """Return the bytes of a row: of all the same."""
        return self.table.shape[1]

    cdef const char* at(self, Py_ssize_t position) noexcept:
        """Return where a row begins; of rows without bytes, nowhere in particular."""
        if not self.table.shape[1]:
            return b""
        return <const char*>&self.table[position if self.slots is None else self.slots[position], 0]
