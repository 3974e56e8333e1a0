# cython: language_level=3, boundscheck=False, wraparound=False
"""A count-min sketch's step for a batch of keys."""

from libc.stdint cimport uint8_t, uint64_t

import numpy as np


cdef extern from "Python.h":
    Py_ssize_t PyObject_Hash(object of) except? -1


def hashes_of(list keys not None):
    """Return the hash of each key."""
    cdef Py_ssize_t at
    found = np.empty(len(keys), np.uint64)
    cdef uint64_t[::1] to = found
    for at in range(to.shape[0]):
        to[at] = <uint64_t>PyObject_Hash(keys[at])
    return found


def add(
    uint8_t[:, ::1] counts not None,
    const uint64_t[::1] multipliers not None,
    int shift,
    uint8_t most,
    const uint64_t[::1] hashes not None,
):
    """Count each key once more, up to `most`; return the counts, the smallest of each key."""
    cdef Py_ssize_t rows = counts.shape[0]
    cdef Py_ssize_t at, row, position
    cdef uint8_t least
    if multipliers.shape[0] != rows or not 0 < shift < 64 or counts.shape[1] < (1 << (64 - shift)):
        raise ValueError("this is no sketch")
    found = np.empty(hashes.shape[0], np.uint8)
    cdef uint8_t[::1] to = found
    for at in range(to.shape[0]):
        least = 255
        for row in range(rows):
            position = (hashes[at] * multipliers[row]) >> shift
            if counts[row, position] < most:
                counts[row, position] += 1
            least = min(least, counts[row, position])
        to[at] = least
    return found
