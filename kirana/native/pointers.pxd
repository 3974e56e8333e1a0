# cython: language_level=3


cdef class Pointers:
    # `rows[i]` is NULL and `sizes[i]` is 0 if there is no value.
    cdef const char** rows
    cdef Py_ssize_t* sizes
    cdef Py_ssize_t count


cdef Pointers point_to(values)
