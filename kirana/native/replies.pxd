# cython: language_level=3

cdef class Values:
    cdef bytes data
    # of which this is a part, and whose memory the next two are; None of what is whole
    cdef Values whole
    cdef Py_ssize_t* starts
    # -1 where there is no string
    cdef Py_ssize_t* sizes
    cdef readonly Py_ssize_t count

    cdef const char* at(self, Py_ssize_t position) noexcept
