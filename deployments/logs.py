"""Where a replica's own words go: its standard error, which Ray keeps and `kirana up` shows."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr() -> None:
    """Serve buffers its own log on the request path; what Kirana has to say must not wait."""
    logger = logging.getLogger("kirana")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(FORMAT))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
