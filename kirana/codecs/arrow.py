"""Conversions between Arrow arrays of strings and `Texts`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kirana.codecs.rows import Texts
from kirana.ragged import Bytes, positions_of


def texts_of(strings: pa.StringArray, nulls: npt.NDArray[np.bool_] | None = None) -> Texts:
    """Return an Arrow array as `Texts` that share the bytes of its strings.

    The array must not contain nulls. `nulls` becomes the mask of the result.
    """
    _, offsets, data = strings.buffers()
    count = len(strings)
    ends = np.frombuffer(offsets, dtype=np.int32, count=count + 1, offset=4 * strings.offset)
    starts = ends[:-1].astype(np.int64)
    joined = np.frombuffer(b"" if data is None else data, dtype=np.uint8)
    return Texts(joined, starts, np.diff(ends).astype(np.int64), nulls)


def joined_of(strings: pa.StringArray) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Return the UTF-8 bytes of all strings, joined, and the position where each string ends.

    The bytes are not copied. The array must not contain nulls.
    """
    texts = texts_of(strings)
    first = int(texts.starts[0]) if len(texts.starts) else 0
    ends = texts.starts + texts.sizes - first
    return texts.data[first : first + int(texts.sizes.sum())], ends


def strings_of(texts: Texts) -> pa.StringArray:
    """Return an Arrow array with copies of the strings. `texts.nulls` is ignored."""
    data = texts.data[positions_of(texts.starts, texts.sizes)]
    ends = np.concatenate([[0], np.cumsum(texts.sizes)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(texts.sizes), pa.py_buffer(ends), pa.py_buffer(data))
