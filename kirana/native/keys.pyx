# cython: language_level=3, boundscheck=False, wraparound=False
"""Loops over the keys of a batch: encode them, find their cluster slots, check their texts."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcpy


cdef extern from "Python.h":
    Py_ssize_t PyObject_Hash(object of) except? -1
    list PyList_New(Py_ssize_t size)
    bint PyUnicode_CheckExact(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void* PyUnicode_DATA(object text)
    const char* PyUnicode_AsUTF8AndSize(str text, Py_ssize_t* size) except NULL


def row_keys(str prefix, list keys not None):
    """Return one key per text of `keys`: `prefix` followed by the text, in UTF-8."""
    cdef Py_ssize_t i, size, prefix_size
    cdef Py_ssize_t count = len(keys)
    cdef const char* prefix_text = PyUnicode_AsUTF8AndSize(prefix, &prefix_size)
    cdef const char* text
    cdef char* to
    cdef list encoded = PyList_New(count)
    for i in range(count):
        text = PyUnicode_AsUTF8AndSize(<str?>keys[i], &size)
        key = PyBytes_FromStringAndSize(NULL, prefix_size + size)
        to = PyBytes_AS_STRING(key)
        memcpy(to, prefix_text, prefix_size)
        memcpy(to + prefix_size, text, size)
        # `PyList_SET_ITEM` takes over a reference.
        Py_INCREF(key)
        PyList_SET_ITEM(encoded, i, key)
    return encoded


def mget_command(list keys not None):
    """Return an `MGET` command for all keys, as bytes to send.

    `keys` holds pairs of a prefix and texts: the prefix followed by each of its texts is a key.
    """
    cdef Py_ssize_t size, prefix_size, used
    cdef Py_ssize_t count = 0
    # The first line and the name of the command take less than 64 bytes.
    cdef Py_ssize_t capacity = 64
    cdef const char* prefix_text
    cdef const char* text
    cdef char* to
    for prefix, texts in keys:
        PyUnicode_AsUTF8AndSize(<str?>prefix, &prefix_size)
        for key_text in <list?>texts:
            PyUnicode_AsUTF8AndSize(<str?>key_text, &size)
            # A "$", the size in up to 20 digits, and two line ends of 2 bytes.
            capacity += prefix_size + size + 25
        count += len(texts)
    command = PyBytes_FromStringAndSize(NULL, capacity)
    to = PyBytes_AS_STRING(command)
    used = snprintf(to, 64, b"*%zd\r\n$4\r\nMGET\r\n", count + 1)
    for prefix, texts in keys:
        prefix_text = PyUnicode_AsUTF8AndSize(<str>prefix, &prefix_size)
        for key_text in <list>texts:
            text = PyUnicode_AsUTF8AndSize(<str>key_text, &size)
            used += write_length(to + used, prefix_size + size)
            memcpy(to + used, prefix_text, prefix_size)
            memcpy(to + used + prefix_size, text, size)
            used += prefix_size + size
            to[used] = b"\r"
            to[used + 1] = b"\n"
            used += 2
    return command[:used]


# The CRC-16 for each byte value, from which longer checksums are computed byte by byte.
cdef uint16_t[256] STEPS


cdef void make_steps() noexcept:
    """Fill `STEPS`."""
    cdef int byte, bit
    cdef uint16_t step
    for byte in range(256):
        step = <uint16_t>(byte << 8)
        for bit in range(8):
            step = <uint16_t>((step << 1) ^ 0x1021) if step & 0x8000 else <uint16_t>(step << 1)
        STEPS[byte] = step


make_steps()


def slots(list keys not None):
    """Return the Redis Cluster slot of each key.

    The slot is the CRC-16 of the key, or of its hash tag (the part in braces), modulo 16384.
    """
    cdef Py_ssize_t i, size
    cdef const uint8_t* text
    cdef const uint8_t* opened
    cdef const uint8_t* closed
    cdef uint16_t crc
    slots_of_keys = []
    for key in keys:
        text = <const uint8_t*>PyBytes_AS_STRING(<bytes?>key)
        size = PyBytes_GET_SIZE(key)
        opened = <const uint8_t*>memchr(text, b"{", size)
        if opened != NULL:
            opened += 1
            closed = <const uint8_t*>memchr(opened, b"}", text + size - opened)
            if closed != NULL and closed > opened:
                text, size = opened, closed - opened
        crc = 0
        for i in range(size):
            crc = <uint16_t>((crc << 8) ^ STEPS[(crc >> 8) ^ text[i]])
        slots_of_keys.append(crc & 0x3FFF)
    return slots_of_keys


def need_no_escape(list texts not None, Py_ssize_t longest):
    """Return whether all texts are valid string ids in ASCII that need no escapes in key texts.

    They must be `str` of 1 to `longest` ASCII characters, without NUL, `|` and `\\`.
    """
    cdef Py_ssize_t i, size
    cdef const char* text
    for element in texts:
        if not PyUnicode_CheckExact(element) or not PyUnicode_IS_COMPACT_ASCII(element):
            return False
        size = PyUnicode_GET_LENGTH(element)
        if size < 1 or size > longest:
            return False
        text = <const char*>PyUnicode_DATA(element)
        for i in range(size):
            if text[i] == b"|" or text[i] == b"\\" or text[i] == 0:
                return False
    return True


def surely_distinct(list texts not None):
    """Return True only if no two texts are equal.

    Only hashes are compared, without their lowest bit. The result is therefore False if two hashes
    are equal, even if the texts differ.
    """
    cdef Py_ssize_t count = len(texts)
    cdef Py_ssize_t mask = 63
    cdef Py_ssize_t i
    cdef uint64_t hashed
    cdef uint64_t* seen
    while mask < 2 * count:
        mask = 2 * mask + 1
    seen = <uint64_t*>calloc(mask + 1, sizeof(uint64_t))
    if seen == NULL:
        raise MemoryError
    try:
        for text in texts:
            # In `seen`, 0 marks a free entry, so no hash may be 0.
            hashed = <uint64_t>PyObject_Hash(text) | 1
            i = (hashed >> 1) & mask
            while seen[i]:
                if seen[i] == hashed:
                    return False
                i = (i + 1) & mask
            seen[i] = hashed
    finally:
        free(seen)
    return True


cdef inline Py_ssize_t write_length(char* to, Py_ssize_t size) noexcept:
    """Write `$`, the size and a line end to `to`. Return how many bytes were written."""
    cdef char digits[20]
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    while True:
        digits[count] = <char>(48 + size % 10)
        count += 1
        size //= 10
        if size == 0:
            break
    to[0] = b"$"
    for i in range(count):
        to[1 + i] = digits[count - 1 - i]
    to[1 + count] = b"\r"
    to[2 + count] = b"\n"
    return count + 3
