"""What a push says that does not come to its end."""

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


class Ending:
    """A push of nothing, which ends with an error after so many rows."""

    rows = 1_000

    def __init__(self, error: BaseException, checked: int, written: int) -> None:
        self._error, self._checked, self._written = error, checked, written

    async def check(self, report: Callable[[int], None]) -> None:
        report(self._checked)
        if self._checked < self.rows:
            raise self._error

    async def write(self, store: object, report: Callable[[int], None], *, guarded: bool) -> Any:
        report(self._written)
        raise self._error


async def push(folder: Path, job: Ending) -> None:
    settings = local_settings(folder, {"features": "memory://"})
    await run_push(cast(Push, job), settings)


async def test_a_store_that_goes_away_is_said_with_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        await push(tmp_path, Ending(Unavailable("redis does not answer"), 1_000, 300))
    assert caught.value.message == (
        "redis does not answer; 300 of 1000 rows or some more are in the store; "
        "the same command writes the rest"
    )


@pytest.mark.parametrize(
    ("checked", "said"), [(500, "nothing was written"), (1_000, "300 of 1000 rows or some more")]
)
async def test_who_interrupts_it_is_told_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checked: int, said: str
) -> None:
    with pytest.raises(asyncio.CancelledError):
        await push(tmp_path, Ending(asyncio.CancelledError(), checked, 300))
    assert f"interrupted: {said}" in capsys.readouterr().err
