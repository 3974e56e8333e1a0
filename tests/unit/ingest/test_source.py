"""Sources: catalog objects that say how files are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import CatalogError
from kirana.ingest.source import Source
from kirana.serving.checks import catalog_checks
from tests.support import SHOP, write_shop

DAILY = """
---
kind: source
name: daily
group: product.stats
files: [exports/product.stats, "s3://lake/stats"]
rename: {sku: product_id, n: clicks}
ignore_extra: true
event_time: dt
"""


def publish(folder: Path, text: str) -> Source:
    catalog = DirectoryCatalog(write_shop(folder, SHOP + text), catalog_checks())
    compiled: Source = catalog.load(catalog.publish().revision).compiled("source", "daily")
    return compiled


def test_a_source_says_how_files_are_read(tmp_path: Path) -> None:
    assert publish(tmp_path, DAILY) == Source(
        group="product.stats",
        renames={"sku": "product_id", "n": "clicks"},
        ignore_extra=True,
        event_time="dt",
        files=("exports/product.stats", "s3://lake/stats"),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("group: product.stats", "group: product.stat", "did you mean 'product.stats'"),
        ("group:", "schema_version: 7\ngroup:", "schema_version: .*no schema version 7"),
        ("n: clicks", "n: click", r"rename\.n: .*did you mean 'clicks'"),
        ("n: clicks", "n: product_id", "two columns become 'product_id'"),
        ('"s3://lake', '"s3://key:secret@lake', r"files\[1\]: .*no place for a secret"),
        ("ignore_extra: true", "ignore_extra: 1", "ignore_extra"),
        ("files: [exports/product.stats, ", "file: [", "did you mean 'files'"),
    ],
)
def test_a_wrong_source_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message) as caught:
        publish(tmp_path, DAILY.replace(old, new))
    assert "key:secret" not in str(caught.value)
