"""Background checks of the parts, whose latest results `/healthz` reports."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from kirana.catalog.revisions import LiveRevision
from kirana.errors import KiranaError, Unavailable
from kirana.part import Parts
from kirana.revision import Revision
from kirana.service import Health, Service

logger = logging.getLogger(__name__)

PROBE_EVERY_S = 1.0
"""Seconds between the end of a check and the start of the next one."""

PROBE_TIMEOUT_S = 1.0
"""Seconds after which a part that has not answered counts as unavailable."""

MAX_AGE_S = 10.0
"""A check that is older says nothing about the present."""


class Probes:
    """Checks of the parts that routes call, on the live revision.

    A reply to `/healthz` calls no part. So it is quick however slow the parts are.
    """

    def __init__(self, parts: Parts, live: LiveRevision) -> None:
        self._parts = parts
        self._live = live
        self._states: Mapping[str, Health] | None = None
        self._checked_at = 0.0

    def latest(self) -> tuple[Mapping[str, Health], float]:
        """Return the health of each part at the last check, and the age of the check in seconds.

        Raise `Unavailable` if the parts were never checked, or not in the last `MAX_AGE_S`.
        """
        if self._states is None:
            raise Unavailable("the parts have not been checked yet")
        age_s = time.monotonic() - self._checked_at
        if age_s > MAX_AGE_S:
            raise Unavailable(f"the parts were last checked {age_s:.0f} s ago")
        return self._states, age_s

    async def check(self) -> None:
        """Check all parts at once."""
        names = [name for name, _ in self._parts]
        revision = self._live.revision
        states = await asyncio.gather(*(_health(part, revision) for _, part in self._parts))
        self._states = dict(zip(names, states, strict=True))
        self._checked_at = time.monotonic()

    async def follow(self) -> None:
        """Check all parts again and again, until cancelled."""
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            await self.check()


async def _health(part: Service, revision: Revision) -> Health:
    """Return the health of a part. An error or a timeout becomes the reason."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await part.health(revision)
    except TimeoutError:
        return Health(f"no answer in {PROBE_TIMEOUT_S:.0f} s")
    except KiranaError as error:
        return Health(error.message)
    except Exception:
        # The checks must go on, or `/healthz` would report this one for good.
        logger.exception("the check of a part failed")
        return Health("the check failed: see Kirana's log")
