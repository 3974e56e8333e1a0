"""Runs one benchmark of the checkout in the working directory: Kirana's own sides, one round each.

`bench.against` starts it in two checkouts in turn, so it must fit their benchmarks, of now and of
before: it replaces what they call by name, and does without what a checkout lacks.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

Side = Callable[[], Awaitable[object]]

LEFT_OUT: dict[str, dict[str, Callable[..., Any]]] = {
    "bench.rank": {"ray_defaults": lambda fixture: nullcontext("")},
    "bench.features": {
        "measure_feast": lambda *_: _finished({}),
        "measure_growth": lambda *_: _finished([]),
    },
}
"""Other sides that take long to start, and parts that give no figure."""

ROUNDS = {"ROUNDS": 1, "HTTP_ROUNDS": 1, "BENCHMARKED": 1_000}
TIMES = 9
"""Short rounds in the process, of which the median counts."""


async def _finished(value: object) -> object:
    return value


def main(name: str, json_file: str) -> None:
    """Measure, and write `{key: {"value", "unit"}}`."""
    sys.path.insert(0, str(Path.cwd()))
    import uvloop

    module = importlib.import_module(f"bench.{name}")
    figures = importlib.import_module("bench.figures")
    paired = importlib.import_module("bench.paired")

    async def own_time(a: Side, b: Side) -> Any:
        calls = await paired._calls(a)
        seconds = [await paired._time(a, calls) for _ in range(TIMES)]
        return figures.Figure.of_times([(each, each) for each in seconds])

    def own_rate(a: Callable[[], float], b: Callable[[], float], rounds: int) -> Any:
        a()  # warms up
        found = a()
        return figures.Figure.of_rates([(found, found)])

    for loaded, each in list(sys.modules.items()):
        if not loaded.startswith("bench."):
            continue
        replaced = {"compare": own_time, "compare_rates": own_rate, **ROUNDS}
        for attribute, value in {**replaced, **LEFT_OUT.get(loaded, {})}.items():
            if hasattr(each, attribute):
                setattr(each, attribute, value)
    report = uvloop.run(module.measure())
    own = {key: {"value": each.a, "unit": each.unit} for key, each in report.figures.items()}
    Path(json_file).write_text(json.dumps(own))


if __name__ == "__main__":
    main(*sys.argv[1:])
