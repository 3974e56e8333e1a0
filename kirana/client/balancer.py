"""Which address a request goes to: of two live direct ports, the one with fewer under way."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

AVOIDED_S = 2.0
"""How long an address that failed is left alone, unless there is no other."""


@dataclass(slots=True)
class Target:
    url: str
    outstanding: int = 0
    avoided_until: float = 0.0


class Balancer:
    """The front door, and the direct ports as they come and go."""

    def __init__(self, front_door: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._front_door = Target(front_door)
        self._direct: dict[str, Target] = {}
        self._clock = clock

    @property
    def direct_urls(self) -> list[str]:
        return list(self._direct)

    def update(self, urls: Sequence[str]) -> None:
        """Take what is live now; what stays keeps its count."""
        self._direct = {url: self._direct.get(url) or Target(url) for url in urls}

    def failed(self, target: Target) -> None:
        target.avoided_until = self._clock() + AVOIDED_S

    def choose(self) -> Target:
        now = self._clock()
        live = [each for each in self._direct.values() if each.avoided_until <= now]
        if not live:
            return self._front_door
        if len(live) > 2:
            live = random.sample(live, 2)
        elif random.random() < 0.5:
            live.reverse()
        return min(live, key=lambda each: each.outstanding)

    @contextmanager
    def using(self, target: Target) -> Iterator[None]:
        target.outstanding += 1
        try:
            yield
        finally:
            target.outstanding -= 1
