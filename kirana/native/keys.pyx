# cython: language_level=3, boundscheck=False, wraparound=False
"""Keys of a batch as bytes, and the command that asks Redis for them."""

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
    """Return `prefix` and each key, in UTF-8."""
    cdef Py_ssize_t at, size, before
    cdef Py_ssize_t count = len(keys)
    cdef const char* head = PyUnicode_AsUTF8AndSize(prefix, &before)
    cdef const char* text
    cdef char* to
    cdef list found = PyList_New(count)
    for at in range(count):
        text = PyUnicode_AsUTF8AndSize(<str?>keys[at], &size)
        key = PyBytes_FromStringAndSize(NULL, before + size)
        to = PyBytes_AS_STRING(key)
        memcpy(to, head, before)
        memcpy(to + before, text, size)
        Py_INCREF(key)
        PyList_SET_ITEM(found, at, key)
    return found


def mget_command(list keys not None):
    """Return `MGET` of keys: each is a prefix, and one of the texts that come with it."""
    cdef Py_ssize_t at, size, before, used
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t room = 64
    cdef const char* head
    cdef const char* text
    cdef char* to
    for prefix, texts in keys:
        PyUnicode_AsUTF8AndSize(<str?>prefix, &before)
        for each in <list?>texts:
            PyUnicode_AsUTF8AndSize(<str?>each, &size)
            # "$", a length of up to 20 digits, and twice the end of a line
            room += before + size + 25
        count += len(texts)
    command = PyBytes_FromStringAndSize(NULL, room)
    to = PyBytes_AS_STRING(command)
    used = snprintf(to, 64, b"*%zd\r\n$4\r\nMGET\r\n", count + 1)
    for prefix, texts in keys:
        head = PyUnicode_AsUTF8AndSize(<str>prefix, &before)
        for each in <list>texts:
            text = PyUnicode_AsUTF8AndSize(<str>each, &size)
            used += write_length(to + used, before + size)
            memcpy(to + used, head, before)
            memcpy(to + used + before, text, size)
            used += before + size
            to[used] = b"\r"
            to[used + 1] = b"\n"
            used += 2
    return command[:used]


cdef uint16_t[256] STEPS


cdef void make_steps() noexcept:
    cdef int byte, bit
    cdef uint16_t step
    for byte in range(256):
        step = <uint16_t>(byte << 8)
        for bit in range(8):
            step = <uint16_t>((step << 1) ^ 0x1021) if step & 0x8000 else <uint16_t>(step << 1)
        STEPS[byte] = step


make_steps()


def slots(list keys not None):
    """Return the slot in a Redis Cluster of each key: CRC-16 of it, or of what is in its braces."""
    cdef Py_ssize_t count = len(keys)
    cdef Py_ssize_t at, size
    cdef const uint8_t* text
    cdef const uint8_t* opened
    cdef const uint8_t* closed
    cdef uint16_t crc
    found = []
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
        for at in range(size):
            crc = <uint16_t>((crc << 8) ^ STEPS[(crc >> 8) ^ text[at]])
        found.append(crc & 0x3FFF)
    return found


def plain(list texts not None, Py_ssize_t longest):
    """Whether all are `str` of 1 to `longest` ASCII characters, none of them NUL, `|` or `\\`."""
    cdef Py_ssize_t at, size
    cdef const char* text
    for each in texts:
        if not PyUnicode_CheckExact(each) or not PyUnicode_IS_COMPACT_ASCII(each):
            return False
        size = PyUnicode_GET_LENGTH(each)
        if size < 1 or size > longest:
            return False
        text = <const char*>PyUnicode_DATA(each)
        for at in range(size):
            if text[at] == b"|" or text[at] == b"\\" or text[at] == 0:
                return False
    return True


def distinct(list texts not None):
    """Whether it is sure that no two texts are the same; two of one hash may be."""
    cdef Py_ssize_t count = len(texts)
    cdef Py_ssize_t mask = 63
    cdef Py_ssize_t at
    cdef uint64_t hashed
    cdef uint64_t* seen
    while mask < 2 * count:
        mask = 2 * mask + 1
    seen = <uint64_t*>calloc(mask + 1, sizeof(uint64_t))
    if seen == NULL:
        raise MemoryError
    try:
        for text in texts:
            # 0 is for what is free
            hashed = <uint64_t>PyObject_Hash(text) | 1
            at = (hashed >> 1) & mask
            while seen[at]:
                if seen[at] == hashed:
                    return False
                at = (at + 1) & mask
            seen[at] = hashed
    finally:
        free(seen)
    return True


cdef inline Py_ssize_t write_length(char* to, Py_ssize_t size) noexcept:
    """Write `$<size>` and the end of the line; return how much that is."""
    cdef char digits[20]
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t at
    while True:
        digits[count] = <char>(48 + size % 10)
        count += 1
        size //= 10
        if size == 0:
            break
    to[0] = b"$"
    for at in range(count):
        to[1 + at] = digits[count - 1 - at]
    to[1 + count] = b"\r"
    to[2 + count] = b"\n"
    return count + 3
