# cython: language_level=3, boundscheck=False, wraparound=False
"""Replies of Redis that are strings, kept as received bytes without a Python object per string."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp

cdef enum:
    # Maximum number of strings in an array. hiredis reads larger arrays.
    MAX_STRINGS = 1 << 24


# This class does not take part in garbage collection, because the collector might clear the
# attribute `whole` of a slice. The slice would then free memory that it does not own. No reference
# cycles can arise, because `whole` is never a slice itself.
@cython.no_gc
cdef class Values:
    """A sequence of values (`bytes` or None). An element is created when it is accessed.

    A slice shares the bytes of the replies, and must have the step 1.
    """

    def __dealloc__(self):
        if self.whole is None:
            free(self.starts)
            free(self.sizes)

    cdef const char* address_of(self, Py_ssize_t position) noexcept:
        """Return a pointer to the string at `position`, or NULL for None."""
        if self.sizes[position] < 0:
            return NULL
        return PyBytes_AS_STRING(self.data) + self.starts[position]

    def __len__(self):
        return self.count

    @property
    def nbytes(self):
        """How many bytes the strings have in all."""
        cdef Py_ssize_t position, total = 0
        for position in range(self.count):
            if self.sizes[position] > 0:
                total += self.sizes[position]
        return total

    @property
    def largest(self):
        """How many bytes the longest string has; 0 if there is none."""
        cdef Py_ssize_t position, most = 0
        for position in range(self.count):
            if self.sizes[position] > most:
                most = self.sizes[position]
        return most

    def take_tagged(self, bytes tag):
        """Remove `tag` from the beginning of each string. A string that is only the tag gets None.

        Return the positions of the strings that do not begin with it, which get None, too. Slices
        that exist already are changed with this object.
        """
        cdef Py_ssize_t position, size = len(tag)
        cdef const char* start = PyBytes_AS_STRING(tag)
        cdef const char* data = PyBytes_AS_STRING(self.data)
        others = []
        for position in range(self.count):
            if self.sizes[position] < size or memcmp(data + self.starts[position], start, size):
                self.sizes[position] = -1
                others.append(position)
            elif self.sizes[position] == size:
                self.sizes[position] = -1
            else:
                self.starts[position] += size
                self.sizes[position] -= size
        return others

    def __getitem__(self, position):
        cdef Py_ssize_t index
        cdef Values slice_
        if isinstance(position, slice):
            start, stop, step = position.indices(self.count)
            if step != 1:
                raise ValueError(f"a slice must have the step 1, not {step}")
            slice_ = Values.__new__(Values)
            slice_.data = self.data
            slice_.whole = self if self.whole is None else self.whole
            slice_.starts = self.starts + <Py_ssize_t>start
            slice_.sizes = self.sizes + <Py_ssize_t>start
            slice_.count = max(stop - start, 0)
            return slice_
        index = position
        if index < 0:
            index += self.count
        if index < 0 or index >= self.count:
            raise IndexError(position)
        if self.sizes[index] < 0:
            return None
        return PyBytes_FromStringAndSize(self.address_of(index), self.sizes[index])

    def __eq__(self, other):
        return list(self) == other


class NotStrings(Exception):
    """Raised for a reply that does not consist of strings or is too large. Use hiredis for it."""


cdef class ValueReader:
    """Reads replies that consist of strings from a receive buffer.

    If a call of `read` finds the reply incomplete, the next call continues where it stopped.
    """

    cdef Py_ssize_t* starts
    cdef Py_ssize_t* sizes
    # The number of strings of the current reply, or -1 between two replies.
    cdef Py_ssize_t wanted
    # How many of them were read, and the offset of the next one from the start of the reply.
    cdef Py_ssize_t count
    cdef Py_ssize_t offset
    cdef readonly Py_ssize_t used

    def __cinit__(self):
        self.wanted = -1

    def __dealloc__(self):
        free(self.starts)
        free(self.sizes)

    def read(self, bytearray buffer not None, Py_ssize_t start, Py_ssize_t end, Py_ssize_t strings):
        """Return the strings that begin at `start`, or None if not all have arrived before `end`.

        `strings` is the expected number of strings, or -1 for one array of strings. `start` must
        stay at the same byte until the result is not None. The attribute `used` then holds how many
        bytes the strings took.

        Raise `NotStrings` if anything else has arrived. The reader then starts over: all bytes from
        `start` on are still to be read.
        """
        cdef const char* data = <const char*>buffer
        cdef Py_ssize_t i, line, size
        cdef Values values
        if self.wanted < 0:
            self.offset = self.count = 0
            if strings >= 0:
                self.expect(strings)
            else:
                line = end_of_line(data, start, end)
                if line < 0:
                    return None
                if data[start] != b"*" or not parse_number(data, start + 1, line, &size):
                    raise NotStrings
                # Memory for all strings is allocated at once, so limit their number.
                if size < 0 or size > MAX_STRINGS:
                    raise NotStrings
                self.expect(size)
                self.offset = line + 2 - start
        while self.count < self.wanted:
            i = start + self.offset
            line = end_of_line(data, i, end)
            if line < 0:
                return None
            if data[i] == b"_" and line == i + 1 and data[line] == b"\r":
                size = -1
            elif data[i] != b"$" or not parse_number(data, i + 1, line, &size):
                self.wanted = -1
                raise NotStrings
            if size >= 0:
                if line + 2 + size + 2 > end:
                    return None
                self.starts[self.count] = line + 2 - start
                self.offset = line + 2 + size + 2 - start
            else:
                self.offset = line + 2 - start
            self.sizes[self.count] = size
            self.count += 1
        values = Values.__new__(Values)
        values.data = PyBytes_FromStringAndSize(data + start, self.offset)
        values.starts, values.sizes, values.count = self.starts, self.sizes, self.wanted
        self.starts, self.sizes, self.wanted = NULL, NULL, -1
        self.used = self.offset
        return values

    cdef int expect(self, Py_ssize_t strings) except -1:
        """Prepare for this number of strings: allocate memory for their positions and sizes."""
        free(self.starts)
        free(self.sizes)
        self.starts = <Py_ssize_t*>malloc(max(strings, 1) * sizeof(Py_ssize_t))
        self.sizes = <Py_ssize_t*>malloc(max(strings, 1) * sizeof(Py_ssize_t))
        if self.starts == NULL or self.sizes == NULL:
            raise MemoryError
        self.wanted = strings
        return 0


cdef inline Py_ssize_t end_of_line(const char* data, Py_ssize_t start, Py_ssize_t end) noexcept:
    """Return the position where the line at `start` ends, or -1 if its end has not arrived yet.

    This is the position of the byte before the line feed. The caller must check that this byte is a
    carriage return.
    """
    cdef const char* line_feed
    if start >= end:
        return -1
    line_feed = <const char*>memchr(data + start, b"\n", end - start)
    # If nothing is before the line feed, return its own position. It is not a carriage return.
    return -1 if line_feed == NULL else max(line_feed - data - 1, start)


cdef inline bint parse_number(
    const char* data, Py_ssize_t start, Py_ssize_t end, Py_ssize_t* result
) noexcept:
    """Parse the number from `start` to `end` into `result`. Return whether it is valid.

    A carriage return must follow the number. The only valid negative number is -1.
    """
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t i
    if data[end] != b"\r":
        return False
    if end - start == 2 and data[start] == b"-" and data[start + 1] == b"1":
        result[0] = -1
        return True
    if end <= start or end - start > 12 or (data[start] == b"0" and end - start > 1):
        return False
    for i in range(start, end):
        if data[i] < b"0" or data[i] > b"9":
            return False
        size = size * 10 + data[i] - 48
    result[0] = size
    return True
