# cython: language_level=3

cdef extern from *:
    """
    #define kirana_prefetch(address) __builtin_prefetch(address)
    """
    # Start to load the cache line at `address` into the CPU's caches, without waiting for it.
    void prefetch "kirana_prefetch" (const void* address) noexcept
