"""Give freed memory back to the operating system."""

from __future__ import annotations

import ctypes
import sys


def return_free_memory() -> None:
    """Give freed memory back to the system. This may take milliseconds, without the GIL.

    glibc keeps freed memory for the threads that allocated it. No-op with other C libraries.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
