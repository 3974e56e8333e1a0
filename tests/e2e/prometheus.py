"""What a running Kirana counted, read from the figures that it offers to Prometheus."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import httpx

_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def figures_url(log: Path) -> str:
    """Return the URL that `kirana up` says; nothing as long as it has not said it."""
    found = re.search(r"Metrics for Prometheus: (\S+)", log.read_text())
    return found[1] if found else ""


def counts(url: str, series: str, *labels: str) -> Counter[tuple[str, ...]]:
    """Return the sums of a series by the values of some of its labels."""
    found: Counter[tuple[str, ...]] = Counter()
    for name, labelled, value in _SAMPLE.findall(httpx.get(url, timeout=30).text):
        if name == series:
            values = dict(_LABEL.findall(labelled))
            found[tuple(values[label] for label in labels)] += int(float(value))
    return found
