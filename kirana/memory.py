"""Return of free memory to the operating system."""

from __future__ import annotations

import ctypes
import sys


def return_free_memory() -> None:
    """Return memory that was freed. It may take milliseconds, but does not hold the GIL.

    glibc keeps freed memory for the threads that allocated it. No-op with other C libraries.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
