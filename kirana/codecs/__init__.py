"""Codecs, which convert columns of values to the bytes of stored rows, and back.

docs/formats.md describes the formats.
"""

from kirana.codecs.packed import Packed
from kirana.codecs.rows import STATUS_NAMES, Codec, Column, Rows, Status
from kirana.codecs.text import Text

CODECS: dict[str, Codec] = {"packed": Packed(), "text": Text()}
"""The codecs, by the name that feature groups give in `codec:`."""

__all__ = ["CODECS", "STATUS_NAMES", "Codec", "Column", "Rows", "Status"]
