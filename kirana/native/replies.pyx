# cython: language_level=3, boundscheck=False, wraparound=False
"""Answers of Redis that are strings, left as the bytes that came: no object a string."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from libc.string cimport memchr

cdef enum:
    # strings in an array; a longer one is left to hiredis
    LARGEST = 1 << 24


# the collector would clear `whole` of a part before that is gone, which then frees what is not its
# own; and there are no cycles to find: a part is of what is whole
@cython.no_gc
cdef class Values:
    """A sequence of `bytes`, or None where there is none, over the bytes of an answer."""

    def __dealloc__(self):
        if self.whole is None:
            free(self.starts)
            free(self.sizes)

    cdef const char* at(self, Py_ssize_t position) noexcept:
        """Return where a string is, NULL where there is none."""
        if self.sizes[position] < 0:
            return NULL
        return PyBytes_AS_STRING(self.data) + self.starts[position]

    def __len__(self):
        return self.count

    def __getitem__(self, position):
        cdef Py_ssize_t index
        cdef Values part
        if isinstance(position, slice):
            start, stop, step = position.indices(self.count)
            if step != 1:
                raise ValueError("a part of it is in one piece")
            part = Values.__new__(Values)
            part.data = self.data
            part.whole = self if self.whole is None else self.whole
            part.starts = self.starts + <Py_ssize_t>start
            part.sizes = self.sizes + <Py_ssize_t>start
            part.count = max(stop - start, 0)
            return part
        index = position
        if index < 0:
            index += self.count
        if index < 0 or index >= self.count:
            raise IndexError(position)
        if self.sizes[index] < 0:
            return None
        return PyBytes_FromStringAndSize(self.at(index), self.sizes[index])

    def __eq__(self, other):
        return list(self) == other


class Unusual(Exception):
    """An answer that is no string and no array of strings."""


cdef class ValueReader:
    """Reads answers out of the bytes as they come; each byte is looked at once.

    An answer that is not whole yet is gone on with when there is more of it.
    """

    cdef Py_ssize_t* starts
    cdef Py_ssize_t* sizes
    cdef Py_ssize_t wanted
    cdef Py_ssize_t found
    cdef Py_ssize_t offset
    cdef readonly Py_ssize_t used

    def __cinit__(self):
        self.wanted = -1

    def __dealloc__(self):
        free(self.starts)
        free(self.sizes)

    def read(self, bytearray buffer not None, Py_ssize_t start, Py_ssize_t end, Py_ssize_t strings):
        """Return what stands at `start`, None if it is not whole; `used` is how long it was.

        It is so many strings, or with -1 an array of strings. Raises `Unusual` for anything
        else; nothing of it is used then.
        """
        cdef const char* data = <const char*>buffer
        cdef Py_ssize_t at, line, size
        cdef Values values
        if self.wanted < 0:
            self.offset = self.found = 0
            if strings >= 0:
                self.expect(strings)
            else:
                line = end_of_line(data, start, end)
                if line < 0:
                    return None
                if data[start] != b"*" or not number(data, start + 1, line, &size):
                    raise Unusual
                # memory for all is taken now, on the word of a server
                if size < 0 or size > LARGEST:
                    raise Unusual
                self.expect(size)
                self.offset = line + 2 - start
        while self.found < self.wanted:
            at = start + self.offset
            line = end_of_line(data, at, end)
            if line < 0:
                return None
            if data[at] == b"_" and line == at + 1 and data[line] == b"\r":
                size = -1
            elif data[at] != b"$" or not number(data, at + 1, line, &size):
                self.wanted = -1
                raise Unusual
            if size >= 0:
                if line + 2 + size + 2 > end:
                    return None
                self.starts[self.found] = line + 2 - start
                self.offset = line + 2 + size + 2 - start
            else:
                self.offset = line + 2 - start
            self.sizes[self.found] = size
            self.found += 1
        values = Values.__new__(Values)
        values.data = PyBytes_FromStringAndSize(data + start, self.offset)
        values.starts, values.sizes, values.count = self.starts, self.sizes, self.wanted
        self.starts, self.sizes, self.wanted = NULL, NULL, -1
        self.used = self.offset
        return values

    cdef int expect(self, Py_ssize_t strings) except -1:
        free(self.starts)
        free(self.sizes)
        self.starts = <Py_ssize_t*>malloc(max(strings, 1) * sizeof(Py_ssize_t))
        self.sizes = <Py_ssize_t*>malloc(max(strings, 1) * sizeof(Py_ssize_t))
        if self.starts == NULL or self.sizes == NULL:
            raise MemoryError
        self.wanted = strings
        return 0


cdef inline Py_ssize_t end_of_line(const char* data, Py_ssize_t start, Py_ssize_t end) noexcept:
    """Return where the line ends that starts at `start`, -1 if that is not here yet.

    What comes before the line feed need not be a carriage return: `number` looks at it.
    """
    cdef const char* found
    if start >= end:
        return -1
    found = <const char*>memchr(data + start, b"\n", end - start)
    # of an empty line, what is before it is never a number's
    return -1 if found == NULL else max(found - data - 1, start)


cdef inline bint number(
    const char* data, Py_ssize_t start, Py_ssize_t end, Py_ssize_t* found
) noexcept:
    """Whether a number, and then a line's end, is between the two; -1 is the only negative one."""
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t at
    if data[end] != b"\r":
        return False
    if end - start == 2 and data[start] == b"-" and data[start + 1] == b"1":
        found[0] = -1
        return True
    if end <= start or end - start > 12 or (data[start] == b"0" and end - start > 1):
        return False
    for at in range(start, end):
        if data[at] < b"0" or data[at] > b"9":
            return False
        size = size * 10 + data[at] - 48
    found[0] = size
    return True
