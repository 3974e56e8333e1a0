# cython: language_level=3

cdef class Values:
    cdef bytes data
    # For a slice, the object that owns the memory of `starts` and `sizes`. Otherwise None.
    cdef Values whole
    cdef Py_ssize_t* starts
    # The size of a string, or -1 for None.
    cdef Py_ssize_t* sizes
    cdef readonly Py_ssize_t count

    cdef const char* address_of(self, Py_ssize_t position) noexcept
