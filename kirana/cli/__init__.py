"""The `kirana` command."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line. See `kirana.cli.app.run` for the exit codes."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        # There is nothing to clean up during the import, so Ctrl-C may end the process at once.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kirana.cli.app import run

    signal.signal(signal.SIGINT, handler)
    run()
