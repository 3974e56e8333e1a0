# cython: language_level=3, boundscheck=False, wraparound=False
"""An index of the cache's slots by key, which looks up a batch with the memory ahead of it.

A batch of keys misses the CPU's caches at every step: the index, the slot's times, the key, the
row. So each step is taken for all keys before the next one, and fetches what that will need. The
rows themselves stay where they are: a rank that copied them would push more out of those caches.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from kirana.native.pointers cimport Pointers, point_to
from kirana.native.prefetch cimport prefetch

import numpy as np


cdef extern from "Python.h":
    Py_ssize_t PyObject_Hash(object of) except? -1
    # by pointers: a reference to what is in a list would touch it before it was fetched
    PyObject* PyList_GET_ITEM(list of, Py_ssize_t at)
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* text)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text)
    void* PyUnicode_DATA(PyObject* text)

cdef enum:
    SMALLEST = 64
    # of a row, so many bytes are fetched before it is known which ones will be read
    FETCHED = 512


cdef struct Entry:
    # of the key, and what is left of it is where the search begins; `slot` is one more than the
    # slot, 0 where nothing is
    uint64_t hash
    Py_ssize_t slot


cdef inline bint same(PyObject* one, PyObject* other):
    """Whether two `str` are equal."""
    if one == other:
        return True
    if PyUnicode_IS_COMPACT_ASCII(one) and PyUnicode_IS_COMPACT_ASCII(other):
        return PyUnicode_GET_LENGTH(one) == PyUnicode_GET_LENGTH(other) and not memcmp(
            PyUnicode_DATA(one), PyUnicode_DATA(other), PyUnicode_GET_LENGTH(one)
        )
    return <str>one == <str>other


cdef class SlotIndex:
    """Where each key's row is. Keys have numbered slots; a slot has one key, or none."""

    cdef Entry* entries
    cdef Py_ssize_t mask
    cdef Py_ssize_t count
    cdef list keys

    def __cinit__(self):
        self.mask = SMALLEST - 1
        self.entries = <Entry*>calloc(SMALLEST, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        self.count = 0
        self.keys = []

    def __dealloc__(self):
        free(self.entries)

    def __len__(self):
        return self.count

    def get(self, str key not None):
        """Return the slot of a key, -1 if it has none."""
        return self.entries[self.find(key, PyObject_Hash(key))].slot - 1

    def key_of(self, Py_ssize_t slot):
        """Return the key that a slot has, None if it has none."""
        return self.keys[slot] if 0 <= slot < len(self.keys) else None

    def put(self, str key not None, Py_ssize_t slot):
        """Give a slot that no key has to a key that has none."""
        cdef uint64_t hashed = PyObject_Hash(key)
        if slot < 0:
            raise ValueError("slots are numbered from 0")
        if 2 * (self.count + 1) > self.mask:
            self.grow()
        while len(self.keys) <= slot:
            self.keys.append(None)
        cdef Py_ssize_t at = self.find(key, hashed)
        if self.entries[at].slot or self.keys[slot] is not None:
            raise ValueError("the key has a slot, or the slot a key")
        self.entries[at].hash = hashed
        self.entries[at].slot = slot + 1
        self.keys[slot] = key
        self.count += 1

    def get_all(self, list keys not None):
        """Return the slot of each key, -1 where it has none."""
        cdef Py_ssize_t at
        cdef Py_ssize_t count = len(keys)
        slots = np.empty(count, np.intp)
        cdef Py_ssize_t[::1] slot_of = slots
        for at in range(count):
            # texts keep their hashes
            prefetch(&self.entries[PyObject_Hash(<str?>keys[at]) & self.mask])
        for at in range(count):
            slot_of[at] = self.entries[self.find(<str>keys[at], PyObject_Hash(keys[at]))].slot - 1
        return slots

    def put_all(self, list keys not None, const Py_ssize_t[::1] slots not None):
        """Give each key its slot, one that no key has; return the slots that the keys have.

        A key that has a slot keeps that.
        """
        cdef Py_ssize_t at, found
        if len(keys) != slots.shape[0]:
            raise ValueError("each key needs a slot")
        taken = np.empty(slots.shape[0], np.intp)
        cdef Py_ssize_t[::1] taken_at = taken
        for at in range(slots.shape[0]):
            key = keys[at]
            found = self.entries[self.find(<str?>key, PyObject_Hash(key))].slot - 1
            if found < 0:
                self.put(key, slots[at])
                found = slots[at]
            taken_at[at] = found
        return taken

    def refill(
        self,
        list keys not None,
        values,
        uint8_t[:, ::1] table not None,
        double[:] loaded,
        double now,
        uint32_t[:] uses,
    ):
        """Copy values into the rows of keys that have a slot, as loaded `now` and used once more.

        Return the positions of the others: keys without a slot, values of another size than a row.
        """
        cdef Pointers pointers = point_to(values)
        cdef Py_ssize_t count = pointers.count
        cdef Py_ssize_t size = table.shape[1]
        cdef Py_ssize_t at, slot
        if count != len(keys):
            raise ValueError("each key needs a value")
        if len(self.keys) > min(loaded.shape[0], uses.shape[0], table.shape[0]):
            raise ValueError("there are more slots than rows")
        left = []
        for at in range(count):
            prefetch(&self.entries[PyObject_Hash(<str?>keys[at]) & self.mask])
        for at in range(count):
            slot = self.by_hash(PyObject_Hash(keys[at]))
            if slot >= 0:
                prefetch(PyList_GET_ITEM(self.keys, slot))
                prefetch(&table[slot, 0])
        for at in range(count):
            slot = self.entries[self.find(<str>keys[at], PyObject_Hash(keys[at]))].slot - 1
            if slot < 0 or pointers.rows[at] == NULL or pointers.sizes[at] != size or not size:
                left.append(at)
                continue
            memcpy(&table[slot, 0], pointers.rows[at], size)
            loaded[slot] = now
            uses[slot] += 1
        return left

    def replace(
        self,
        list keys not None,
        const Py_ssize_t[::1] positions not None,
        const Py_ssize_t[::1] candidates not None,
        Py_ssize_t[::1] slots not None,
        uint32_t[:] uses,
    ):
        """Give the keys at some positions each its candidate, in the stead of the key that has it.

        A candidate that no key has, or that is among `slots` already, is left alone. `slots` has
        the slot of each key, and uses begin at 0. Return how many keys had to go.
        """
        cdef Py_ssize_t at, position, slot, own
        cdef Py_ssize_t gone = 0
        if len(keys) < slots.shape[0] or candidates.shape[0] < positions.shape[0]:
            raise ValueError("each position has a key and a candidate")
        cdef uint8_t* taken = <uint8_t*>calloc(max(len(self.keys), 1), 1)
        if taken == NULL:
            raise MemoryError
        try:
            for at in range(slots.shape[0]):
                if 0 <= slots[at] < len(self.keys):
                    taken[slots[at]] = 1
            for at in range(positions.shape[0]):
                position, slot = positions[at], candidates[at]
                if not 0 <= position < slots.shape[0] or slot >= uses.shape[0]:
                    raise ValueError("there is no such position")
                key = keys[position]
                own = self.get(key)
                if own >= 0:
                    slots[position] = own
                    continue
                old = self.key_of(slot)
                if old is None or taken[slot]:
                    continue
                taken[slot] = 1
                self.pop(old)
                self.put(key, slot)
                uses[slot] = 0
                slots[position] = slot
                gone += 1
        finally:
            free(taken)
        return gone

    def pop(self, str key not None):
        """Take its slot from a key; return it, -1 if it had none."""
        cdef Py_ssize_t at = self.find(key, PyObject_Hash(key))
        cdef Py_ssize_t slot = self.entries[at].slot - 1
        cdef Py_ssize_t after, home
        if slot < 0:
            return -1
        self.keys[slot] = None
        self.count -= 1
        # those behind it close up, so that a search need not pass over what is gone
        after = at
        while True:
            after = (after + 1) & self.mask
            if not self.entries[after].slot:
                break
            home = self.entries[after].hash & self.mask
            if ((after - home) & self.mask) >= ((after - at) & self.mask):
                self.entries[at] = self.entries[after]
                at = after
        self.entries[at].slot = 0
        return slot

    cdef Py_ssize_t find(self, str key, uint64_t hashed):
        """Return where the key is, or would be."""
        cdef Py_ssize_t at = hashed & self.mask
        while self.entries[at].slot:
            if self.entries[at].hash == hashed and same(
                PyList_GET_ITEM(self.keys, self.entries[at].slot - 1), <PyObject*>key
            ):
                break
            at = (at + 1) & self.mask
        return at

    cdef int grow(self) except -1:
        cdef Py_ssize_t mask = 2 * self.mask + 1
        cdef Py_ssize_t at, to
        cdef Entry* entries = <Entry*>calloc(mask + 1, sizeof(Entry))
        if entries == NULL:
            raise MemoryError
        for at in range(self.mask + 1):
            if self.entries[at].slot:
                to = self.entries[at].hash & mask
                while entries[to].slot:
                    to = (to + 1) & mask
                entries[to] = self.entries[at]
        free(self.entries)
        self.entries, self.mask = entries, mask
        return 0

    def find_all(
        self,
        list keys not None,
        const double[:] loaded,
        double oldest,
        uint32_t[:] uses,
        const uint8_t[:, ::1] table,
    ):
        """Return for each key its slot, -1 where it has none or its row is stale, and how many
        have one. Their uses are counted, and the beginnings of their rows fetched.
        """
        cdef Py_ssize_t count = len(keys)
        cdef Py_ssize_t at, slot
        cdef Py_ssize_t hits = 0
        cdef Py_ssize_t fetched = min(table.shape[1], FETCHED)
        cdef Py_ssize_t line
        if len(self.keys) > min(loaded.shape[0], uses.shape[0], table.shape[0]):
            raise ValueError("there are more slots than rows")
        slots = np.empty(count, np.intp)
        cdef Py_ssize_t[::1] slot_of = slots
        cdef uint64_t* hashes = <uint64_t*>malloc(max(count, 1) * sizeof(uint64_t))
        if hashes == NULL:
            raise MemoryError
        try:
            for at in range(count):
                hashes[at] = PyObject_Hash(<str?>keys[at])
                prefetch(&self.entries[hashes[at] & self.mask])
            for at in range(count):
                slot = self.by_hash(hashes[at])
                slot_of[at] = slot
                if slot >= 0:
                    prefetch(&loaded[slot])
                    prefetch(&uses[slot])
                    prefetch(PyList_GET_ITEM(self.keys, slot))
                    for line in range(0, fetched, 64):
                        prefetch(&table[slot, line])
            for at in range(count):
                slot = slot_of[at]
                if slot < 0:
                    continue
                if not same(PyList_GET_ITEM(self.keys, slot), PyList_GET_ITEM(keys, at)):
                    # of another key with its hash
                    slot = self.entries[self.find(<str>keys[at], hashes[at])].slot - 1
                if slot < 0 or loaded[slot] <= oldest:
                    slot_of[at] = -1
                    continue
                slot_of[at] = slot
                uses[slot] += 1
                hits += 1
        finally:
            free(hashes)
        return slots, hits

    cdef Py_ssize_t by_hash(self, uint64_t hashed) noexcept:
        """Return the first slot with a hash, -1 if there is none."""
        cdef Py_ssize_t at = hashed & self.mask
        while self.entries[at].slot:
            if self.entries[at].hash == hashed:
                return self.entries[at].slot - 1
            at = (at + 1) & self.mask
        return -1
