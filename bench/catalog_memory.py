"""Print the bytes of memory that a process takes for one revision of a catalog, and for ten."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import psutil

from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.models.files import ModelFiles
from kirana.serving.checks import catalog_checks


def main(folder: Path) -> None:
    process = psutil.Process()
    publisher = DirectoryCatalog(folder, catalog_checks(ModelFiles(f"file://{folder}/models")))
    reader = DirectoryCatalog(folder, catalog_checks())
    before = process.memory_info().rss
    kept = [reader.load(reader.current())]
    gc.collect()
    one_revision = process.memory_info().rss - before
    publisher.load(publisher.current())
    gc.collect()
    # The revision that the publisher itself has loaded does not count.
    before = process.memory_info().rss
    for n in range(9):
        change = {"kind": "event_type", "name": "ev2x", "keep": n + 1}
        publisher.publish_change(Change({"object": change}), None)
        kept.append(reader.load(reader.current()))
    gc.collect()
    print(one_revision, one_revision + process.memory_info().rss - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
