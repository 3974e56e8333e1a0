"""Three seeds of the chaos runs. `make chaos` runs more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.history import History
from tests.chaos.laws import DATA_LAWS, breaches
from tests.chaos.run import run_seed
from tests.chaos.schedule import faults_of
from tests.chaos.world import World

pytestmark = [pytest.mark.redis, pytest.mark.cassandra, pytest.mark.serve]

SEEDS = {28: ["replica killed"], 51: ["replica cut-off"], 56: ["cassandra paused", "redis paused"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("chaos")) as built:
        yield built


@pytest.mark.parametrize("seed", SEEDS)
def test_the_laws_hold(world: World, seed: int, tmp_path: Path) -> None:
    assert sorted(fault.kind for fault in faults_of(seed)) == SEEDS[seed]
    history = History()
    asyncio.run(run_seed(world, seed, history))
    history.save(tmp_path / "history.jsonl")
    # The other tests keep the machine busy.
    assert breaches(history, DATA_LAWS) == []
