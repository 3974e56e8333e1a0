"""Measure side A of each comparison of a benchmark, in the checkout of the working directory.

`bench.against` runs this file in two checkouts in turn, so it must work with current and older
benchmarks. It replaces functions of a benchmark by name, and skips names that a checkout lacks.
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
"""Replacements by module, for sides that take a long time to start, and for measurements that
yield no `Figure`."""

ROUNDS = {"ROUNDS": 1, "HTTP_ROUNDS": 1, "BENCHMARKED": 1_000}
"""Values of constants by name, in all modules of the benchmark."""
TIMES = 9
"""The number of rounds of a side in this process. Their median is the figure."""


async def _finished(value: object) -> object:
    return value


def main(name: str, json_file: str) -> None:
    """Run the benchmark `name`, and write `{key: {"value", "unit"}}` to `json_file`."""
    sys.path.insert(0, str(Path.cwd()))
    import uvloop

    module = importlib.import_module(f"bench.{name}")
    figures = importlib.import_module("bench.figures")
    paired = importlib.import_module("bench.paired")

    async def own_time(a: Side, b: Side) -> Any:
        calls = await paired._calls(a)
        seconds = [await paired._time(a, calls) for _ in range(TIMES)]
        return figures.Figure.of_times([(time, time) for time in seconds])

    def own_rate(a: Callable[[], float], b: Callable[[], float], rounds: int) -> Any:
        # The first call is a warm-up.
        a()
        rate = a()
        return figures.Figure.of_rates([(rate, rate)])

    for module_name, loaded in list(sys.modules.items()):
        if not module_name.startswith("bench."):
            continue
        replaced = {"compare": own_time, "compare_rates": own_rate, **ROUNDS}
        for attribute, value in {**replaced, **LEFT_OUT.get(module_name, {})}.items():
            if hasattr(loaded, attribute):
                setattr(loaded, attribute, value)
    report = uvloop.run(module.measure())
    own = {key: {"value": figure.a, "unit": figure.unit} for key, figure in report.figures.items()}
    Path(json_file).write_text(json.dumps(own))


if __name__ == "__main__":
    main(*sys.argv[1:])
