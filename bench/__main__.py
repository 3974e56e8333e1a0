"""`python -m bench NAME --json out.json`; `make bench NAME=... JSON=...` sets itself up first."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

NAMES = ("features", "flow", "infer")
BARS = {
    "lmdb_vs_get_loop": ">= 0.7",
    "mixed_versions_vs_uniform": ">= 0.5",
    "chain_vs_by_hand": "<= 1.5",
    "fan_out_vs_by_hand": "<= 1.5",
    "diamond_vs_by_hand": "<= 1.5",
    "infer_500x60_lmdb_vs_by_hand": "<= 1.6",
}


def main(
    name: Annotated[str | None, typer.Argument(help=f"One of {', '.join(NAMES)}.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")
    ] = None,
    list_names: Annotated[bool, typer.Option("--list", help="Show what there is.")] = False,
) -> None:
    """Measure one benchmark in paired rounds and print its ratios beside their bars."""
    if list_names or name is None:
        print("\n".join(NAMES))
        return
    if name not in NAMES:
        raise typer.BadParameter(f"there is no benchmark '{name}': {', '.join(NAMES)}")
    ratios = asyncio.run(importlib.import_module(f"bench.{name}").measure())
    table = Table("key", "ratio", "spread", "bar", "A, us a call", "B, us a call", title=name)
    for key, each in ratios.items():
        spread = f"{each.low:.2f} - {each.high:.2f}"
        row = (key, f"{each.ratio:.2f}", spread, BARS[key], f"{each.a_us:.0f}", f"{each.b_us:.0f}")
        table.add_row(*row)
    Console(width=110).print(table)
    if json_file is not None:
        content = {
            "bench": name,
            "commit": _commit(),
            "ratios": {key: each.ratio for key, each in ratios.items()},
            "rows": [{"key": key, **asdict(each)} for key, each in ratios.items()],
        }
        json_file.write_text(json.dumps(content, indent=2) + "\n")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    typer.run(main)
