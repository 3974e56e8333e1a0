"""The choice of an address for each request: the less busy of two live direct ports."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

AVOIDED_S = 2.0
"""Seconds for which a direct port is not chosen after it failed."""


@dataclass(slots=True)
class Target:
    """The URL of a direct port or of the front door.

    `outstanding` is the number of requests in progress. `avoided_until` is in seconds of the
    balancer's clock.
    """

    url: str
    outstanding: int = 0
    avoided_until: float = 0.0


class Balancer:
    """Chooses between the live direct ports, or the front door if no direct port can be used."""

    def __init__(self, front_door: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._front_door = Target(front_door)
        self._direct: dict[str, Target] = {}
        self._clock = clock

    @property
    def direct_urls(self) -> list[str]:
        """The URLs of the live direct ports, including those that failed recently."""
        return list(self._direct)

    def update(self, urls: Sequence[str]) -> None:
        """Replace the list of direct ports. Ports that stay in the list keep their state."""
        self._direct = {url: self._direct.get(url) or Target(url) for url in urls}

    def failed(self, target: Target) -> None:
        """Avoid a direct port for `AVOIDED_S` seconds. The front door is never avoided."""
        target.avoided_until = self._clock() + AVOIDED_S

    def choose(self) -> Target:
        """Return the target of the next request.

        Of two random direct ports that can be used, return the one with fewer requests in progress.
        Return the front door only if no direct port can be used.
        """
        now = self._clock()
        usable = [target for target in self._direct.values() if target.avoided_until <= now]
        if not usable:
            return self._front_door
        if len(usable) > 2:
            usable = random.sample(usable, 2)
        elif random.random() < 0.5:
            usable.reverse()
        return min(usable, key=lambda target: target.outstanding)

    @contextmanager
    def using(self, target: Target) -> Iterator[None]:
        """Count a request as in progress while the block runs."""
        target.outstanding += 1
        try:
            yield
        finally:
            target.outstanding -= 1
