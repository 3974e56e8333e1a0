"""Messages of a push that fails or is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from kirana.cli.locations import local_settings
from kirana.cli.push import run_push
from kirana.errors import Unavailable
from kirana.ingest.push import Push


class FailingPush:
    """A stand-in for `Push` that writes nothing, reports progress, and then raises `error`.

    It raises in `check` if `checked` is less than `rows`, otherwise in `write`.
    """

    rows = 1_000

    def __init__(self, error: BaseException, checked: int, written: int) -> None:
        self._error, self._checked, self._written = error, checked, written

    async def check(self, report: Callable[[int], None], **_: object) -> None:
        report(self._checked)
        if self._checked < self.rows:
            raise self._error

    async def write(self, store: object, report: Callable[[int], None], **_: object) -> Any:
        report(self._written)
        raise self._error


async def push(folder: Path, job: FailingPush) -> None:
    settings = local_settings(folder, {"features": "memory://"})
    await run_push(cast(Push, job), settings)


async def test_a_push_to_a_store_that_stops_answering_reports_the_rows_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(Unavailable) as caught:
        await push(tmp_path, FailingPush(Unavailable("redis does not answer"), 1_000, 300))
    assert caught.value.message == (
        "redis does not answer; at least 300 of 1000 rows were processed; "
        "run the same command again for the rest"
    )


@pytest.mark.parametrize(
    ("checked", "message"), [(500, "nothing was written"), (1_000, "at least 300 of 1000 rows")]
)
async def test_an_interrupted_push_reports_the_rows_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checked: int, message: str
) -> None:
    with pytest.raises(asyncio.CancelledError):
        await push(tmp_path, FailingPush(asyncio.CancelledError(), checked, 300))
    assert f"interrupted: {message}" in capsys.readouterr().err
