# cython: language_level=3

from libc.stdint cimport uint8_t


cdef class Borrowed:
    cdef object __weakref__
    cdef const uint8_t[:, ::1] table
    # None once the rows are copied: then row i is row i of the table
    cdef const Py_ssize_t[::1] slots
    cdef readonly Py_ssize_t count

    cdef const char* at(self, Py_ssize_t position) noexcept
    cdef Py_ssize_t size(self) noexcept
