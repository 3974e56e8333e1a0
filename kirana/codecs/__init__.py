"""Between columns of values and the bytes that a store keeps. See docs/formats.md."""

from kirana.codecs.packed import Packed
from kirana.codecs.rows import STATUS_NAMES, Codec, Column, Rows, Status
from kirana.codecs.text import Text

CODECS: dict[str, Codec] = {"packed": Packed(), "text": Text()}
"""By the name that a feature group gives in `codec:`."""

__all__ = ["CODECS", "STATUS_NAMES", "Codec", "Column", "Rows", "Status"]
