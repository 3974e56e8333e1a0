"""The command `kirana`."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; every error of ours becomes one message and an exit code."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    if on_interrupt is signal.default_int_handler:
        # while the commands are imported Ctrl-C has nothing to tidy up
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kirana.cli.app import run

    signal.signal(signal.SIGINT, on_interrupt)
    run()
