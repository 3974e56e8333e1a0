# cython: language_level=3

cdef extern from *:
    """
    #define kirana_prefetch(at) __builtin_prefetch(at)
    """
    # bring what is there into the CPU's caches, without waiting for it
    void prefetch "kirana_prefetch" (const void* at) noexcept
