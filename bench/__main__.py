"""The command line of the benchmarks: `python -m bench NAME --json out.json`.

`make bench NAME=... JSON=...` also installs what a benchmark needs.
"""

from __future__ import annotations

import importlib
import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from bench.against import ROUNDS, compare_checkouts, comparison_table
from bench.figures import BARS, Breakdown, Figure, Report

NAMES = ("catalog", "client", "features", "flow", "infer", "ingest", "rank", "serve", "tiers")


def main(
    name: Annotated[str | None, typer.Argument(help=f"One of {', '.join(NAMES)}.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write the figures here, as JSON."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="COMMIT", help="Measure this checkout and COMMIT in turn."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=9, help="With --against, how many times to measure each checkout.")
    ] = ROUNDS,
    list_names: Annotated[bool, typer.Option("--list", help="List the benchmarks.")] = False,
) -> None:
    """Run a benchmark, and print its figures with their bars."""
    if list_names or name is None:
        print("\n".join(NAMES))
        return
    if name not in NAMES:
        raise typer.BadParameter(f"unknown benchmark '{name}': choose one of {', '.join(NAMES)}")
    if against is not None:
        _compare(name, against, rounds, json_file)
        return
    report: Report = uvloop.run(importlib.import_module(f"bench.{name}").measure())
    console = Console(width=110)
    console.print(_table(name, report))
    for breakdown in report.breakdowns:
        console.print(_breakdown_table(breakdown))
    for note in report.notes:
        console.print(note)
    if json_file is not None:
        json_file.write_text(json.dumps(_as_json(name, report), indent=2) + "\n")


def _compare(name: str, commit: str, rounds: int, json_file: Path | None) -> None:
    """Print the ratio new / old for each figure. Exit with status 1 if one is slower."""
    comparison = compare_checkouts(name, commit, rounds)
    Console(width=110).print(comparison_table(name, comparison))
    if json_file is not None:
        content = {"bench": name, "commit": _commit(), "rounds": rounds, **asdict(comparison)}
        json_file.write_text(json.dumps(content, indent=2) + "\n")
    if comparison.slower:
        raise typer.Exit(1)


def _table(name: str, report: Report) -> Table:
    table = Table("figure", "median", "spread", "bar", "", "A", "B", title=name)
    for key, figure in report.figures.items():
        bar = BARS.get(key)
        verdict = "" if bar is None else "reached" if bar.reached(figure.value) else "missed"
        row = [key, _number(figure.value), f"{_number(figure.low)} - {_number(figure.high)}"]
        row += [str(bar or "reported"), verdict]
        is_ratio = figure.b is not None
        row += [
            _side(figure, figure.a) if is_ratio else "",
            _side(figure, figure.b) if is_ratio else "",
        ]
        table.add_row(*row)
    return table


def _breakdown_table(breakdown: Breakdown) -> Table:
    table = Table("step", breakdown.unit, title=breakdown.title)
    for step, value in breakdown.parts.items():
        table.add_row(step, _number(value))
    return table


def _side(figure: Figure, value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} {figure.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _as_json(name: str, report: Report) -> dict[str, object]:
    return {
        "bench": name,
        "commit": _commit(),
        "ratios": {key: figure.value for key, figure in report.figures.items()},
        "rows": [
            {"key": key, "bar": str(BARS.get(key, "reported")), **asdict(figure)}
            for key, figure in report.figures.items()
        ],
        "breakdowns": [asdict(breakdown) for breakdown in report.breakdowns],
        "notes": list(report.notes),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    application = typer.Typer(pretty_exceptions_enable=False)
    application.command()(main)
    application()
