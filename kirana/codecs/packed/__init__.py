"""The packed codec: binary rows that numpy decodes as arrays."""

from kirana.codecs.packed.codec import Packed

__all__ = ["Packed"]
