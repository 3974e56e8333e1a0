"""Ctrl-C, pressed once or several times, in a separate process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kirana.cli.interrupts import delayed_interrupts
from tests.waiting import wait_for

BOUND_S = 30

WAITING = """
import asyncio, sys
from kirana.cli.interrupts import run_until_interrupted

async def main():
    print("ready", flush=True)
    try:
        await asyncio.sleep(600)
    finally:
        print("leaving", flush=True)
        await asyncio.sleep(TIDY_S)
        print("tidy", flush=True)

try:
    run_until_interrupted(main())
except KeyboardInterrupt:
    sys.exit(130)
"""


@contextmanager
def waiting(tidy_s: float) -> Iterator[subprocess.Popen[str]]:
    """Start a process that waits for Ctrl-C and then takes `tidy_s` seconds to end."""
    code = WAITING.replace("TIDY_S", str(tidy_s))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_lets_the_running_coroutine_clean_up(times: int) -> None:
    with waiting(0.0) as process:
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=BOUND_S)
    assert (output, errors) == ("leaving\ntidy\n", "")
    assert process.returncode == 130


def test_a_later_ctrl_c_kills_a_process_that_does_not_end() -> None:
    with waiting(600.0) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "leaving\n"

        def ended() -> bool:
            process.send_signal(signal.SIGINT)
            return process.poll() is not None

        wait_for(ended, "a further Ctrl-C ends it")
        output, errors = process.communicate(timeout=BOUND_S)
    assert (output, errors) == ("", "")
    assert process.returncode == -signal.SIGINT


IMPORTING = """
import sys
from kirana.cli import main

class Announce:
    def find_spec(self, name, path=None, target=None):
        if name == "kirana.cli.app":
            print("importing", flush=True)

sys.meta_path.insert(0, Announce())
main()
"""
"""A program that prints a line when `main` begins to import the commands."""


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.15, 0.3, 0.5])
def test_ctrl_c_during_the_import_of_the_commands_prints_nothing(delay_s: float) -> None:
    command = [sys.executable, "-c", IMPORTING, "doctor", "--help"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=BOUND_S)
    assert errors == ""


def interrupted(times: int) -> list[str]:
    """Interrupt a block this many times, and return the steps that it completed after that."""
    done = []

    def block() -> None:
        with delayed_interrupts():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return done


def test_one_interrupt_waits_for_the_end_of_a_block_and_the_second_does_not() -> None:
    assert interrupted(1) == ["the rest"]
    assert interrupted(2) == []
