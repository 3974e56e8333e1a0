"""The innermost loops over rows and keys, compiled by Cython when Kirana is built or installed.

This needs a C compiler (see `hatch_build.py`) and, at run time, a little-endian machine. Kirana
also works without the compiled loops, but slower. For each loop, the module that calls it has
Python code to use instead. `KIRANA_NATIVE=0` turns the compiled loops off.
"""

from __future__ import annotations

import os
import sys

COMPILED = False
"""Whether the modules of this package are compiled, can be used here, and are not turned off."""

if os.environ.get("KIRANA_NATIVE") != "0" and sys.byteorder == "little":
    try:
        from kirana.native import borrowed, keys, pointers, replies, rows, sketch, slots

        COMPILED = True
    except ImportError:
        pass

__all__ = [
    "COMPILED",
    "borrowed",
    "keys",
    "pointers",
    "replies",
    "rows",
    "sketch",
    "slots",
]
