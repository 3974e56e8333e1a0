import numpy as np
import numpy.typing as npt

class Plain:
    status: npt.NDArray[np.uint8]
    event_time_ms: npt.NDArray[np.uint64]
    parts: list[tuple[int, npt.NDArray[np.intp] | None, npt.NDArray[np.uint8], bool]]
    odd: list[int]

def sort_rows(
    values: list[bytes | None] | npt.NDArray[np.uint8],
    leading: npt.NDArray[np.uint64],
    strides: npt.NDArray[np.uint32],
    null_starts: npt.NDArray[np.uint32],
    null_bytes: npt.NDArray[np.uint32],
    now_s: int,
) -> Plain: ...
