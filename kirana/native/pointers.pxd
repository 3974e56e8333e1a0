# cython: language_level=3


cdef class Pointers:
    cdef const char** rows
    cdef Py_ssize_t* sizes
    cdef Py_ssize_t count


cdef Pointers point_to(values)
