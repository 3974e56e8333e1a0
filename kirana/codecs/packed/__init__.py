"""The packed codec: fixed-stride binary rows that decode as arrays."""

from kirana.codecs.packed.codec import Packed

__all__ = ["Packed"]
