import numpy as np
import numpy.typing as npt

from kirana.native.replies import Values

class Versions:
    def __init__(self, versions: list[tuple[int, int, int, int]]) -> None: ...

class Plain:
    status: npt.NDArray[np.uint8]
    event_time_ms: npt.NDArray[np.uint64]
    parts: list[tuple[int, npt.NDArray[np.intp] | None, npt.NDArray[np.uint8], bool]]
    odd: list[int]

def sort_rows(
    values: list[bytes | None] | Values | npt.NDArray[np.uint8], versions: Versions, now_s: int
) -> Plain: ...
