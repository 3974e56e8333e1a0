"""Compare the figures of two checkouts, to see whether a change made Kirana slower."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.figures import Figure

REPOSITORY = Path(__file__).parents[1]
CHECKOUTS = REPOSITORY / ".cache" / "bench"
OWN_SIDE = Path(__file__).with_name("own_side.py")
ROUNDS = 9
DRAWS = 10_000
SLOWER, SURE = 0.95, 1.0
"""A key is slower if its median is below `SLOWER` and its whole interval is below `SURE`."""

Own = Mapping[str, Mapping[str, float | str]]
"""The output of `own_side.py`: the `value` and the `unit` of side A, by key."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ratios new / old by key, and the keys that only one of the checkouts has."""

    commit: str
    figures: Mapping[str, Figure]
    only_new: Sequence[str]
    only_old: Sequence[str]

    @property
    def slower(self) -> list[str]:
        return [key for key, figure in self.figures.items() if _is_slower(figure)]


def compare_checkouts(name: str, commit: str, rounds: int) -> Comparison:
    """Measure the benchmark `name` in this checkout and at `commit` in turn, A B A B ...

    Raise `CalledProcessError` if the commit can't be checked out, or a measurement fails.
    """
    other_folder = checkout(commit)
    pairs: list[tuple[Own, Own]] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{name}: here and at {commit}", total=2 * rounds)
        for _ in range(rounds):
            sides = []
            for folder in (REPOSITORY, other_folder):
                sides.append(_measure(folder, name))
                progress.advance(task)
            pairs.append((sides[0], sides[1]))
    new, old = pairs[0]
    shared = [key for key in new if key in old]
    return Comparison(
        commit,
        {key: ratio_of([(a[key], b[key]) for a, b in pairs]) for key in shared},
        sorted(new.keys() - old.keys()),
        sorted(old.keys() - new.keys()),
    )


def ratio_of(
    rounds: Sequence[tuple[Mapping[str, float | str], Mapping[str, float | str]]],
) -> Figure:
    """Return the median ratio new / old over the rounds, with its 95% interval.

    Times and sizes are inverted, so a ratio below 1 always means slower or larger.
    """
    unit = str(rounds[0][0]["unit"])
    sides = np.array([[float(a["value"]), float(b["value"])] for a, b in rounds])
    ratios = sides[:, 0] / sides[:, 1] if unit == "/s" else sides[:, 1] / sides[:, 0]
    draws = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), (2.5, 97.5))
    a, b = np.median(sides, axis=0)
    return Figure(float(np.median(ratios)), float(low), float(high), float(a), float(b), unit)


def checkout(commit: str) -> Path:
    """Return the folder of a clone at `commit` with its own environment. Create it if missing."""
    full_commit = _git("rev-parse", "--verify", f"{commit}^{{commit}}")
    folder = CHECKOUTS / full_commit[:12]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _git("clone", "--quiet", "--no-checkout", str(REPOSITORY), str(folder))
        subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", full_commit], check=True)
    subprocess.run(["make", "-C", str(folder), ".venv/.development"], check=True, stdout=sys.stderr)
    return folder


def _measure(folder: Path, name: str) -> Own:
    with tempfile.TemporaryDirectory() as temporary:
        file, log = Path(temporary, "own.json"), Path(temporary, "log")
        command = [str(folder / ".venv/bin/python"), str(OWN_SIDE), name, str(file)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        with log.open("wb") as output:
            completed = subprocess.run(
                command, cwd=folder, env=environment, stdout=output, stderr=output, check=False
            )
        if completed.returncode:
            sys.stderr.write(log.read_text(errors="replace")[-4_000:])
            raise subprocess.CalledProcessError(completed.returncode, command)
        own: Own = json.loads(file.read_text())
        return own


def _git(*words: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _is_slower(figure: Figure) -> bool:
    return figure.value < SLOWER and figure.high < SURE


def comparison_table(name: str, comparison: Comparison) -> Table:
    """Return a table to print, with ratio, interval, verdict and both sides for each key."""
    table = Table(
        "figure", "new / old", "95%", "", "new", "old", title=f"{name}, {comparison.commit}"
    )
    for key, figure in comparison.figures.items():
        verdict = "slower" if _is_slower(figure) else ""
        sides = [f"{side:,.4g} {figure.unit}" for side in (figure.a, figure.b or 0.0)]
        table.add_row(
            key, f"{figure.value:.3f}", f"{figure.low:.3f} - {figure.high:.3f}", verdict, *sides
        )
    for key in comparison.only_new:
        table.add_row(key, "only new", "", "", "", "")
    for key in comparison.only_old:
        table.add_row(key, "only old", "", "", "", "")
    return table
