"""Read the counters of a running Kirana from its metrics for Prometheus."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import httpx

_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def metrics_url(log: Path) -> str:
    """Return the URL of the metrics from the log of `kirana up`, or "" if it is not there yet."""
    match = re.search(r"Metrics for Prometheus: (\S+)", log.read_text())
    return match[1] if match else ""


def counts(url: str, series: str, *labels: str) -> Counter[tuple[str, ...]]:
    """Return the sum of a series for each combination of values of `labels`."""
    sums: Counter[tuple[str, ...]] = Counter()
    for name, label_text, value in _SAMPLE.findall(httpx.get(url, timeout=30).text):
        if name == series:
            values = dict(_LABEL.findall(label_text))
            sums[tuple(values[label] for label in labels)] += int(float(value))
    return sums
