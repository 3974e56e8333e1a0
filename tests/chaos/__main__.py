"""`python -m tests.chaos --seeds 1-200`: run seeds, and add their results to a file."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.history import History, Read, Write
from tests.chaos.laws import breaches
from tests.chaos.run import run_seed
from tests.chaos.schedule import faults_of
from tests.chaos.world import World

RESULTS = Path(".chaos")
"""The folder of `results.jsonl`, and of the histories and logs of seeds that failed."""


def seeds_of(text: str) -> list[int]:
    """Return the seeds in a text like `1-200` or `3,7,20-25`."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def main() -> None:
    """Run the seeds of the command line. Exit with status 1 if a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=seeds_of, default="1-3", help="such as 1-200 or 3,7,20-25")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    options.results.mkdir(exist_ok=True)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, World(Path(folder)) as world:
        for seed in options.seeds:
            counts["failed" if _run(world, seed, options.results, Path(folder)) else "passed"] += 1
    print(f"{counts['passed']} seeds passed, {counts['failed']} failed")
    sys.exit(bool(counts["failed"]))


def _run(world: World, seed: int, results: Path, folder: Path) -> list[str]:
    """Run a seed, record its result, and return the breaches of laws."""
    began = time.monotonic()
    history, found = History(), []
    try:
        asyncio.run(run_seed(world, seed, history))
    except AssertionError as error:
        found.append(f"the run ended: {error}")
    found += breaches(history)
    kinds = [fault.kind for fault in faults_of(seed)]
    calls = sum(isinstance(event, Read | Write) for event in history.events)
    result = {
        "seed": seed,
        "faults": kinds,
        "calls": calls,
        "seconds": round(time.monotonic() - began, 1),
        "breaches": found,
    }
    with (results / "results.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    state = f"{len(found)} breaches" if found else "ok"
    print(f"seed {seed}: {', '.join(kinds)}; {calls} calls, {result['seconds']} s: {state}")
    if found:
        history.save(results / f"{seed}.history.jsonl")
        shutil.copytree(folder, results / f"{seed}.logs", ignore=_no_logs, dirs_exist_ok=True)
        for message in found[:5]:
            print(f"  {message}")
    return found


def _no_logs(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied from a folder: all files but logs."""
    return [
        name for name in names if (Path(folder) / name).is_file() and name not in ("log", "up.log")
    ]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the results of finished seeds are kept")
