import numpy as np
import numpy.typing as npt

def hashes_of(keys: list[str]) -> npt.NDArray[np.uint64]: ...
def add(
    counts: npt.NDArray[np.uint8],
    multipliers: npt.NDArray[np.uint64],
    shift: int,
    most: int,
    hashes: npt.NDArray[np.uint64],
) -> npt.NDArray[np.uint8]: ...
