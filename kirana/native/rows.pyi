import numpy as np
import numpy.typing as npt

from kirana.native.borrowed import Borrowed
from kirana.native.replies import Values

class Versions:
    def __init__(self, versions: list[tuple[int, int, int, int]]) -> None: ...

class SortedRows:
    status: npt.NDArray[np.uint8]
    event_time_ms: npt.NDArray[np.uint64]
    sections: list[tuple[int, npt.NDArray[np.intp] | None, Bodies, bool]]
    other_rows: list[int]

class Bodies:
    def __len__(self) -> int: ...
    def cells(self, start: int, stop: int) -> npt.NDArray[np.uint8]: ...

def sort_rows(
    values: list[bytes | None] | Values | Borrowed | npt.NDArray[np.uint8],
    versions: Versions,
    now_s: int,
) -> SortedRows: ...
