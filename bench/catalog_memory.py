"""Print the bytes that a process takes for one revision of a catalog, and for ten of them."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import psutil

from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.models.files import ModelFiles
from kirana.serving.checks import checks_of


def main(folder: Path) -> None:
    process = psutil.Process()
    publisher = DirectoryCatalog(folder, checks_of(ModelFiles(f"file://{folder}/models")))
    reader = DirectoryCatalog(folder, checks_of())
    before = process.memory_info().rss
    kept = [reader.load(reader.current())]
    gc.collect()
    one = process.memory_info().rss - before
    publisher.load(publisher.current())
    gc.collect()
    before = process.memory_info().rss
    for at in range(9):
        change = {"kind": "event_type", "name": "ev2x", "keep": at + 1}
        publisher.publish_change(Change({"object": change}), None)
        kept.append(reader.load(reader.current()))
    gc.collect()
    print(one, one + process.memory_info().rss - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
