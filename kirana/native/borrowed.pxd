# cython: language_level=3

from libc.stdint cimport uint8_t


cdef class Borrowed:
    cdef object __weakref__
    cdef const uint8_t[:, ::1] table
    # None once the rows are copied. `table` then holds the copies, in order.
    cdef const Py_ssize_t[::1] slots
    cdef readonly Py_ssize_t count

    cdef const char* address_of(self, Py_ssize_t position) noexcept
    cdef Py_ssize_t size(self) noexcept
