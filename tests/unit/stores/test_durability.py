"""What an acknowledged write is worth, by the settings of a database."""

from __future__ import annotations

import pytest

from kirana.stores.durability import of_cassandra, of_redis


@pytest.mark.parametrize(
    ("settings", "words", "safe"),
    [
        (("yes", "always", ""), "is on disk", True),
        (("yes", "everysec", "3600 1"), "up to a second of acknowledged writes", True),
        (("yes", "no", ""), "an unknown number of acknowledged writes", True),
        (("no", "everysec", "3600 1 300 100"), "all writes since its last snapshot", False),
        (("no", "everysec", ""), "loses all rows when its process ends", False),
        (("", "", ""), "loses all rows when its process ends", False),
    ],
)
def test_redis(settings: tuple[str, str, str], words: str, safe: bool) -> None:
    durability = of_redis("redis://cache", *settings)
    assert words in durability.text
    assert durability.safe is safe


@pytest.mark.parametrize(
    ("sync", "copies", "words", "safe"),
    [
        ("periodic", 1, "loses the last acknowledged writes", False),
        ("periodic", 3, "3 copies of each row, commitlog_sync: periodic", True),
        ("group", 1, "1 copy of each row, commitlog_sync: group", True),
        ("", 1, "commitlog_sync: unknown", False),
        ("", 3, "commitlog_sync: unknown", True),
    ],
)
def test_cassandra(sync: str, copies: int, words: str, safe: bool) -> None:
    durability = of_cassandra("cassandra://db/shop", sync, copies)
    assert words in durability.text
    assert durability.safe is safe
