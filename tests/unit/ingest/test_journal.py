"""The journal of a push that may be killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.ingest import journal as module
from kirana.ingest.journal import Journal, Pushed

JOB = [["a.parquet", 10, 20], "product.stats"]


@pytest.fixture(autouse=True)
def _save_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0.0)


def test_the_same_push_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Journal(tmp_path, JOB)
    first.checked()
    first.pushed["product.stats"] = Pushed(rows=7, written=5, expired=1, rejected=3)
    first.advance(1, 10)
    second = Journal(tmp_path, JOB)
    assert (second.began_ms, second.is_checked, second.rows_done) == (first.began_ms, True, 10)
    assert (second.done(0), second.done(1)) == (0, 10)
    assert second.pushed == first.pushed
    assert second.pushed["product.stats"].stale == 1


def test_another_push_begins_at_its_start(tmp_path: Path) -> None:
    Journal(tmp_path, JOB).advance(0, 10)
    assert Journal(tmp_path, [["a.parquet", 11, 20], "product.stats"]).rows_done == 0


def test_a_complete_push_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, JOB)
    journal.advance(0, 10)
    assert list(tmp_path.iterdir())
    journal.forget()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"began_ms": "x"}'])
def test_a_file_that_was_cut_off_is_ignored(tmp_path: Path, content: bytes) -> None:
    Journal(tmp_path, JOB).advance(0, 10)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert Journal(tmp_path, JOB).rows_done == 0


def test_without_a_folder_nothing_is_kept() -> None:
    journal = Journal()
    journal.advance(0, 10)
    assert journal.rows_done == 10
    journal.forget()


def test_a_push_that_began_long_ago_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(tmp_path, JOB).advance(0, 10)
    monkeypatch.setattr(module, "MAX_AGE_MS", 0)
    assert Journal(tmp_path, JOB).rows_done == 0


def test_a_push_that_begins_again_has_done_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, JOB)
    journal.checked()
    journal.advance(0, 10)
    journal.begin_again()
    assert (journal.is_checked, journal.rows_done) == (False, 0)
    assert Journal(tmp_path, JOB).rows_done == 0
