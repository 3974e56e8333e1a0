"""What clients asked and saw during a run, and which faults there were, as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec


class Write(msgspec.Struct, tag="write"):
    """A write of one value to keys, or a delete if `value` is None. Times are monotonic seconds.

    The outcome is `unknown` if Kirana did not acknowledge the write: it may have happened, may
    still happen, or never. `event_time` is unique.
    """

    keys: list[str]
    value: int | None
    event_time: int
    began: float
    ended: float
    outcome: Literal["acknowledged", "unknown"]
    door: str


class Read(msgspec.Struct, tag="read"):
    """A read of keys: the value of each, None if there is no row. `status` is that of Kirana.

    A read that got no reply has no values. `final` marks the reads after all faults.
    """

    keys: list[str]
    values: list[int | None]
    status: list[str]
    tier: list[str | None]
    began: float
    ended: float
    door: str
    error: str = ""
    final: bool = False


class Fault(msgspec.Struct, tag="fault"):
    """A fault, from its beginning until Kirana reported that all its parts were up again."""

    kind: str
    began: float
    ended: float
    recovered: float


Event = Write | Read | Fault


@dataclass(slots=True)
class History:
    """The events of one seed, in the order of their ends."""

    events: list[Event] = field(default_factory=list)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def save(self, path: Path) -> None:
        path.write_bytes(b"\n".join(map(msgspec.json.encode, self.events)))

    @classmethod
    def load(cls, path: Path) -> History:
        lines = path.read_bytes().splitlines()
        return cls([msgspec.json.decode(line, type=Event) for line in lines])
