"""Hand-written reads from LMDB: a bare `get` loop, one that decodes, and a bare model session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import onnxruntime

HEADER_BYTES = 24


class LmdbLoop:
    """A reader of an LMDB folder that Kirana has written. It always reads the same keys."""

    def __init__(self, folder: Path, keys: Sequence[bytes], columns: int) -> None:
        self._env = lmdb.open(str(folder), max_dbs=8, readonly=True, lock=False)
        self._database = self._env.open_db(b"features", create=False)
        self._keys = keys
        self._columns = columns

    def get(self) -> list[Any]:
        with self._env.begin(db=self._database) as txn:
            return [txn.get(key) for key in self._keys]

    def matrix(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the rows as float32[keys, columns], without status, expiry or defaults.

        All rows must be stored, and have the same schema version.
        """
        joined = b"".join(self.get())
        rows = np.frombuffer(joined, dtype=np.uint8).reshape(len(self._keys), -1)
        stop = HEADER_BYTES + 4 * self._columns
        return np.ascontiguousarray(rows[:, HEADER_BYTES:stop]).view(np.float32)


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
