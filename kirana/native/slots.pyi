from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

class SlotIndex:
    def __len__(self) -> int: ...
    def get(self, key: str) -> int: ...
    def key_of(self, slot: int) -> str | None: ...
    def put(self, key: str, slot: int) -> None: ...
    def get_all(self, keys: list[str]) -> npt.NDArray[np.intp]: ...
    def put_all(self, keys: list[str], slots: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]: ...
    def refill(
        self,
        keys: list[str],
        values: Sequence[bytes | None],
        table: npt.NDArray[np.uint8],
        loaded: npt.NDArray[np.float64],
        now: float,
        uses: npt.NDArray[np.uint32],
    ) -> list[int]: ...
    def replace(
        self,
        keys: list[str],
        positions: npt.NDArray[np.intp],
        candidates: npt.NDArray[np.intp],
        slots: npt.NDArray[np.intp],
        uses: npt.NDArray[np.uint32],
    ) -> int: ...
    def pop(self, key: str) -> int: ...
    def find_all(
        self,
        keys: list[str],
        loaded: npt.NDArray[np.float64],
        oldest: float,
        uses: npt.NDArray[np.uint32],
        table: npt.NDArray[np.uint8],
    ) -> tuple[npt.NDArray[np.intp], int]: ...
