# cython: language_level=3, boundscheck=False, wraparound=False
"""The slots of a cache by key. All keys of a batch are looked up together.

A look-up of a key reads memory in several places: the index, the load time and uses of the slot,
the key and the row. In a large cache, each of these reads may miss the CPU's caches. Each step is
therefore done for all keys before the next step, and prefetches the memory that the next step
reads. A look-up does not copy rows.
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
    # Elements of lists are handled as pointers here. To count a reference to an element, Cython
    # would access the element before it is prefetched.
    PyObject* PyList_GET_ITEM(list of, Py_ssize_t i)
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* text)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text)
    void* PyUnicode_DATA(PyObject* text)

cdef enum:
    # The number of entries of a new index.
    MIN_ENTRIES = 64
    # Maximum number of bytes of a row to prefetch. Which bytes will be read is not known yet.
    MAX_PREFETCHED = 512


cdef struct Entry:
    # The hash of a key, and its slot plus 1 (0 if the entry is free). The search for a key begins
    # at the position that is given by the lowest bits of its hash.
    uint64_t hash
    Py_ssize_t slot


cdef inline bint same(PyObject* left, PyObject* right):
    """Return whether two `str` are equal."""
    if left == right:
        return True
    if PyUnicode_IS_COMPACT_ASCII(left) and PyUnicode_IS_COMPACT_ASCII(right):
        return PyUnicode_GET_LENGTH(left) == PyUnicode_GET_LENGTH(right) and not memcmp(
            PyUnicode_DATA(left), PyUnicode_DATA(right), PyUnicode_GET_LENGTH(left)
        )
    return <str>left == <str>right


cdef class SlotIndex:
    """A hash table of keys and their slots. A slot is the number of a row in a cache's table.

    A key has at most one slot, and a slot at most one key.
    """

    cdef Entry* entries
    cdef Py_ssize_t mask
    cdef Py_ssize_t count
    cdef list keys

    def __cinit__(self):
        self.mask = MIN_ENTRIES - 1
        self.entries = <Entry*>calloc(MIN_ENTRIES, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        self.count = 0
        self.keys = []

    def __dealloc__(self):
        free(self.entries)

    def __len__(self):
        return self.count

    def get(self, str key not None):
        """Return the slot of a key, or -1 if it has none."""
        return self.entries[self.find(key, PyObject_Hash(key))].slot - 1

    def key_of(self, Py_ssize_t slot):
        """Return the key of a slot, or None if the slot is free."""
        return self.keys[slot] if 0 <= slot < len(self.keys) else None

    def put(self, str key not None, Py_ssize_t slot):
        """Give a slot to a key.

        Raise `ValueError` if the key has a slot, the slot has a key, or `slot` is negative.
        """
        cdef uint64_t hashed = PyObject_Hash(key)
        if slot < 0:
            raise ValueError(f"slots are numbered from 0, not {slot}")
        if 2 * (self.count + 1) > self.mask:
            self.grow()
        while len(self.keys) <= slot:
            self.keys.append(None)
        cdef Py_ssize_t i = self.find(key, hashed)
        if self.entries[i].slot or self.keys[slot] is not None:
            raise ValueError("the key has a slot already, or the slot has a key")
        self.entries[i].hash = hashed
        self.entries[i].slot = slot + 1
        self.keys[slot] = key
        self.count += 1

    def get_all(self, list keys not None):
        """Return the slot of each key, -1 if it has none. The result is `intp[keys]`."""
        cdef Py_ssize_t i
        cdef Py_ssize_t count = len(keys)
        slots = np.empty(count, np.intp)
        cdef Py_ssize_t[::1] slot_of = slots
        for i in range(count):
            # A `str` keeps its hash, so the second loop does not compute it again.
            prefetch(&self.entries[PyObject_Hash(<str?>keys[i]) & self.mask])
        for i in range(count):
            slot_of[i] = self.entries[self.find(<str>keys[i], PyObject_Hash(keys[i]))].slot - 1
        return slots

    def put_all(self, list keys not None, const Py_ssize_t[::1] slots not None):
        """Give each key the slot at its position in `slots`, unless it already has one.

        Return the slot of each key, `intp[keys]`. Raise `ValueError` if a slot that is needed is
        not free. The keys before the one that needs this slot then have their slots already.
        """
        cdef Py_ssize_t i, slot
        if len(keys) != slots.shape[0]:
            raise ValueError(f"expected {len(keys)} slots, one per key, not {slots.shape[0]}")
        result = np.empty(slots.shape[0], np.intp)
        cdef Py_ssize_t[::1] slot_of = result
        for i in range(slots.shape[0]):
            key = keys[i]
            slot = self.entries[self.find(<str?>key, PyObject_Hash(key))].slot - 1
            if slot < 0:
                self.put(key, slots[i])
                slot = slots[i]
            slot_of[i] = slot
        return result

    def refill(
        self,
        list keys not None,
        values,
        uint8_t[:, ::1] table not None,
        double[:] loaded,
        double now,
        uint32_t[:] uses,
    ):
        """Overwrite the rows of the keys that have a slot.

        For each of these slots, set its load time in `loaded` to `now`, and count one more use in
        `uses`. Return the positions that were skipped: keys without a slot, and values that are
        None or do not have the size of a row of `table`. If rows of the table have no bytes, all
        positions are skipped. Raise `ValueError` if the sizes of the arguments do not match.
        """
        cdef Pointers pointers = point_to(values)
        cdef Py_ssize_t count = pointers.count
        cdef Py_ssize_t size = table.shape[1]
        cdef Py_ssize_t i, slot
        if count != len(keys):
            raise ValueError(f"expected {len(keys)} values, one per key, not {count}")
        if len(self.keys) > min(loaded.shape[0], uses.shape[0], table.shape[0]):
            raise ValueError("there are more slots than rows")
        skipped = []
        for i in range(count):
            prefetch(&self.entries[PyObject_Hash(<str?>keys[i]) & self.mask])
        for i in range(count):
            slot = self.by_hash(PyObject_Hash(keys[i]))
            if slot >= 0:
                prefetch(PyList_GET_ITEM(self.keys, slot))
                prefetch(&table[slot, 0])
        for i in range(count):
            slot = self.entries[self.find(<str>keys[i], PyObject_Hash(keys[i]))].slot - 1
            if slot < 0 or pointers.rows[i] == NULL or pointers.sizes[i] != size or not size:
                skipped.append(i)
                continue
            memcpy(&table[slot, 0], pointers.rows[i], size)
            loaded[slot] = now
            uses[slot] += 1
        return skipped

    def replace(
        self,
        list keys not None,
        const Py_ssize_t[::1] positions not None,
        const Py_ssize_t[::1] candidates not None,
        Py_ssize_t[::1] slots not None,
        uint32_t[:] uses,
    ):
        """Give slots of other keys to keys of a batch. Return how many keys have lost their slot.

        `keys` are the keys of the batch, and `slots` holds their slots, -1 for none. `positions`
        are the positions of the keys that need a slot, and `candidates` holds a slot for each of
        them. A candidate is not used if it is free, or if it belongs to a key of the batch. A key
        that already has a slot keeps it.

        `slots` is updated. The uses of a slot that gets another key are set to 0. Raise
        `ValueError` if a position or a candidate does not exist.
        """
        cdef Py_ssize_t i, position, slot, own
        cdef Py_ssize_t evicted = 0
        if len(keys) < slots.shape[0] or candidates.shape[0] < positions.shape[0]:
            raise ValueError("there must be a key for each slot, and a candidate for each position")
        cdef uint8_t* taken = <uint8_t*>calloc(max(len(self.keys), 1), 1)
        if taken == NULL:
            raise MemoryError
        try:
            for i in range(slots.shape[0]):
                if 0 <= slots[i] < len(self.keys):
                    taken[slots[i]] = 1
            for i in range(positions.shape[0]):
                position, slot = positions[i], candidates[i]
                if not 0 <= position < slots.shape[0] or slot >= uses.shape[0]:
                    raise ValueError(f"there is no position {position} or no slot {slot}")
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
                evicted += 1
        finally:
            free(taken)
        return evicted

    def pop(self, str key not None):
        """Free the slot of a key and return the slot, or return -1 if the key has none."""
        cdef Py_ssize_t i = self.find(key, PyObject_Hash(key))
        cdef Py_ssize_t slot = self.entries[i].slot - 1
        cdef Py_ssize_t after, preferred
        if slot < 0:
            return -1
        self.keys[slot] = None
        self.count -= 1
        # A search stops at a free entry. Therefore move a later entry that would be out of reach
        # into the gap at i. This leaves a new gap, which is filled in the same way.
        after = i
        while True:
            after = (after + 1) & self.mask
            if not self.entries[after].slot:
                break
            preferred = self.entries[after].hash & self.mask
            if ((after - preferred) & self.mask) >= ((after - i) & self.mask):
                self.entries[i] = self.entries[after]
                i = after
        self.entries[i].slot = 0
        return slot

    cdef Py_ssize_t find(self, str key, uint64_t hashed):
        """Return the position of a key's entry, or of the free entry where it would be stored."""
        cdef Py_ssize_t i = hashed & self.mask
        while self.entries[i].slot:
            if self.entries[i].hash == hashed and same(
                PyList_GET_ITEM(self.keys, self.entries[i].slot - 1), <PyObject*>key
            ):
                break
            i = (i + 1) & self.mask
        return i

    cdef int grow(self) except -1:
        """Double the size of the hash table."""
        cdef Py_ssize_t mask = 2 * self.mask + 1
        cdef Py_ssize_t i, to
        cdef Entry* entries = <Entry*>calloc(mask + 1, sizeof(Entry))
        if entries == NULL:
            raise MemoryError
        for i in range(self.mask + 1):
            if self.entries[i].slot:
                to = self.entries[i].hash & mask
                while entries[to].slot:
                    to = (to + 1) & mask
                entries[to] = self.entries[i]
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
        """Return one slot per key, `intp[keys]`, and the number of hits.

        The slot is -1 if the key has none, or if its row was loaded at `oldest` or before. All
        other keys are hits: count one more use in `uses` for each. Prefetch the first bytes of the
        rows in `table`, because the caller reads them next. Raise `ValueError` if there are more
        slots than rows.
        """
        cdef Py_ssize_t count = len(keys)
        cdef Py_ssize_t i, slot
        cdef Py_ssize_t hits = 0
        cdef Py_ssize_t prefetched = min(table.shape[1], MAX_PREFETCHED)
        cdef Py_ssize_t line
        if len(self.keys) > min(loaded.shape[0], uses.shape[0], table.shape[0]):
            raise ValueError("there are more slots than rows")
        slots = np.empty(count, np.intp)
        cdef Py_ssize_t[::1] slot_of = slots
        cdef uint64_t* hashes = <uint64_t*>malloc(max(count, 1) * sizeof(uint64_t))
        if hashes == NULL:
            raise MemoryError
        try:
            for i in range(count):
                hashes[i] = PyObject_Hash(<str?>keys[i])
                prefetch(&self.entries[hashes[i] & self.mask])
            for i in range(count):
                slot = self.by_hash(hashes[i])
                slot_of[i] = slot
                if slot >= 0:
                    prefetch(&loaded[slot])
                    prefetch(&uses[slot])
                    prefetch(PyList_GET_ITEM(self.keys, slot))
                    for line in range(0, prefetched, 64):
                        prefetch(&table[slot, line])
            for i in range(count):
                slot = slot_of[i]
                if slot < 0:
                    continue
                if not same(PyList_GET_ITEM(self.keys, slot), PyList_GET_ITEM(keys, i)):
                    # The slot belongs to a different key with the same hash.
                    slot = self.entries[self.find(<str>keys[i], hashes[i])].slot - 1
                if slot < 0 or loaded[slot] <= oldest:
                    slot_of[i] = -1
                    continue
                slot_of[i] = slot
                uses[slot] += 1
                hits += 1
        finally:
            free(hashes)
        return slots, hits

    cdef Py_ssize_t by_hash(self, uint64_t hashed) noexcept:
        """Return the slot of the first entry with this hash, or -1 if there is none.

        The entry may belong to a different key with the same hash.
        """
        cdef Py_ssize_t i = hashed & self.mask
        while self.entries[i].slot:
            if self.entries[i].hash == hashed:
                return self.entries[i].slot - 1
            i = (i + 1) & self.mask
        return -1
