"""The command `kirana`."""

from __future__ import annotations


def main() -> None:
    """Run the command line; every error of ours becomes one message and an exit code."""
    from kirana.cli.app import run

    run()
