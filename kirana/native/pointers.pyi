from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

def sizes_of(values: Sequence[bytes | None]) -> npt.NDArray[np.int64]: ...
def copy_values(
    values: Sequence[bytes | None],
    positions: npt.NDArray[np.intp],
    table: npt.NDArray[np.uint8],
    slots: npt.NDArray[np.intp],
) -> None: ...
