import numpy as np
import numpy.typing as npt

def take(
    index: dict[str, int],
    keys: list[str],
    loaded: npt.NDArray[np.float64],
    oldest: float,
    uses: npt.NDArray[np.uint32],
    table: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]: ...
