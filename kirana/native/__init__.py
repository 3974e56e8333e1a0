"""The inmost loops over rows and keys, compiled where the machine that installed Kirana could.

Each of them stands in Python too, where it is used, and gives the same: a build without a C
compiler (see `hatch_build.py`) is whole, and slower. `KIRANA_NATIVE=0` turns them off.
"""

from __future__ import annotations

import os
import sys

COMPILED = False
"""Whether the modules of this package are here, and may be called."""

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
