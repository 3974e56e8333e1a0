# cython: language_level=3, boundscheck=False, wraparound=False
"""Counts the keys of a batch in a count-min sketch."""

from libc.stdint cimport uint8_t, uint64_t

import numpy as np


cdef extern from "Python.h":
    Py_ssize_t PyObject_Hash(object of) except? -1


def hashes_of(list keys not None):
    """Return one hash per key, `uint64[keys]`."""
    cdef Py_ssize_t i
    hashes = np.empty(len(keys), np.uint64)
    cdef uint64_t[::1] to = hashes
    for i in range(to.shape[0]):
        to[i] = <uint64_t>PyObject_Hash(keys[i])
    return hashes


def add(
    uint8_t[:, ::1] counts not None,
    const uint64_t[::1] multipliers not None,
    int shift,
    uint8_t most,
    const uint64_t[::1] hashes not None,
):
    """Add one to the count of the key of each hash, and return the new counts, `uint8[hashes]`.

    A key has one counter in each row of `counts`. Its position there is the hash times the
    multiplier of the row, shifted right by `shift`. The count of a key is the smallest of its
    counters. Counters stop at `most`. Raise `ValueError` if the shapes and `shift` do not match.
    """
    cdef Py_ssize_t rows = counts.shape[0]
    cdef Py_ssize_t i, row, position
    cdef uint8_t least
    if multipliers.shape[0] != rows or not 0 < shift < 64 or counts.shape[1] < (1 << (64 - shift)):
        raise ValueError("the shapes of the counters and multipliers do not match `shift`")
    new_counts = np.empty(hashes.shape[0], np.uint8)
    cdef uint8_t[::1] to = new_counts
    for i in range(to.shape[0]):
        least = 255
        for row in range(rows):
            position = (hashes[i] * multipliers[row]) >> shift
            if counts[row, position] < most:
                counts[row, position] += 1
            least = min(least, counts[row, position])
        to[i] = least
    return new_counts
