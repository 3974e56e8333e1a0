"""The faults of a seed, and their times."""

from __future__ import annotations

import random
from dataclasses import dataclass

QUICK = (
    "redis paused",
    "redis killed",
    "redis restored",
    "cassandra paused",
    "replica paused",
    "replica killed",
    "replica cut-off",
)
"""Faults after which all servers are up again in a few seconds."""

SLOW = ("cassandra killed", "cassandra filled")
"""Faults after which a server takes some 15 seconds to start. One seed in five has one."""

SLOW_EVERY = 5


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault that begins `at_s` seconds after the start, and lasts `lasts_s` seconds."""

    kind: str
    at_s: float
    lasts_s: float


def faults_of(seed: int) -> list[PlannedFault]:
    """Return the faults of a seed, in the order of their times. Faults of different kinds overlap.

    A server has one fault at most.
    """
    rng = random.Random(seed)
    kinds = [rng.choice(SLOW)] if seed % SLOW_EVERY == 0 else []
    count = rng.choice((1, 1, 2))
    while len(kinds) < count:
        kind = rng.choice(QUICK)
        if kind.split()[0] not in {other.split()[0] for other in kinds}:
            kinds.append(kind)
    planned = [
        PlannedFault(kind, round(rng.uniform(1.0, 3.5), 2), round(rng.uniform(0.3, 4.5), 2))
        for kind in kinds
    ]
    return sorted(planned, key=lambda fault: fault.at_s)
