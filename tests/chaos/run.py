"""Run one seed: clients, faults, recovery, final reads."""

from __future__ import annotations

import asyncio
import random
import time

from tests.chaos.clients import Clients
from tests.chaos.history import Fault, History
from tests.chaos.laws import SETTLED_S
from tests.chaos.schedule import PlannedFault, faults_of
from tests.chaos.world import World

QUIET_S = 3.0
"""How long clients go on after all faults, when all laws hold again."""

RECOVERY_S = 60.0
"""The longest time from the end of a fault until all parts report that they are up."""


async def run_seed(world: World, seed: int, history: History) -> None:
    """Run the operations and the faults of a seed, and add them to a history.

    Raise `AssertionError` if not all parts are up again after the faults.
    """
    clients = Clients(seed, await asyncio.to_thread(world.doors), history)
    began = time.monotonic()
    stop = asyncio.Event()
    load = asyncio.create_task(clients.run(stop))
    choice = random.Random(f"replica of {seed}").randrange(1 << 16)
    try:
        faults = [
            asyncio.create_task(_fault(world, fault, began, choice)) for fault in faults_of(seed)
        ]
        done = [await fault for fault in faults]
        await _wait_until_up(world, clients)
        recovered = time.monotonic()
        for fault in done:
            fault.recovered = recovered
            history.events.append(fault)
        await asyncio.sleep(SETTLED_S + QUIET_S)
    finally:
        stop.set()
        await load
    await asyncio.sleep(1)
    await clients.read_all()
    await clients.close()


async def _fault(world: World, planned: PlannedFault, began: float, choice: int) -> Fault:
    await asyncio.sleep(planned.at_s - (time.monotonic() - began))
    begun = time.monotonic()
    mend = await asyncio.to_thread(world.begin, planned.kind, choice)
    await asyncio.sleep(planned.lasts_s)
    await asyncio.to_thread(mend)
    return Fault(planned.kind, begun, time.monotonic(), 0.0)


async def _wait_until_up(world: World, clients: Clients) -> None:
    deadline = time.monotonic() + RECOVERY_S
    while not await asyncio.to_thread(world.is_up):
        assert time.monotonic() < deadline, "not all parts are up again"
        await asyncio.sleep(0.2)
    clients.doors = await asyncio.to_thread(world.doors)
