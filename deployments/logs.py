"""The log of a replica or an actor: the file that KIRANA_LOG_FILE names, or stderr."""

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
    """Configure the logger `kirana` of this process. No-op if it has a handler already.

    The logger needs its own handler, because Serve buffers the records that are logged during a
    request. Each line has the id of the current request, "-" outside of requests.
    """
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
