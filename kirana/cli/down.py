"""The `kirana down` command."""

from __future__ import annotations

from kirana.cli.console import err, out
from kirana.cli.instance import Instance
from kirana.cli.locations import CatalogDirectory


def down(directory: CatalogDirectory) -> None:
    """Stop the Kirana that serves a directory.

    If it has crashed, clean up the processes and files that it left behind.
    """
    with err.status("stopping"):
        stopped = Instance(directory).stop()
    out.print("stopped" if stopped else f"no Kirana is up for {directory}")
