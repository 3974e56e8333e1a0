"""Where a replica's own words go: the file that `kirana up` names, else its standard error."""

from __future__ import annotations

import logging
import os
import sys

from kirana.request import current_id
from kirana.serving.environment import LOG_FILE

FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(request_id)s %(name)s: %(message)s"


def _with_request_id(record: logging.LogRecord) -> bool:
    record.request_id = current_id.get()
    return True


def start_log() -> None:
    """Serve buffers its own log on the request path; what Kirana has to say must not wait."""
    logger = logging.getLogger("kirana")
    if logger.handlers:
        return
    file = os.environ.get(LOG_FILE)
    handler = logging.FileHandler(file) if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(_with_request_id)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
