"""What a Redis that does not do as it is asked has said, and what that means."""

from __future__ import annotations

import hiredis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from kirana.breaker import Breaker
from kirana.errors import Unavailable

FAILURES = (RedisError, RedisClusterException, OSError, LookupError, EOFError)
"""What redis-py, the socket and a connection raise."""

NOT_YET = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
"""What a server says that can't answer anybody now."""

_NOT_YET_ERRORS = (ClusterDownError, MasterDownError, TryAgainError)
"""The same as redis-py raises it, without the word."""


def unavailable(what: str, error: Exception, breaker: Breaker) -> Unavailable:
    """Return the error for whoever has asked, and tell the breaker."""
    reason = str(error) or type(error).__name__
    later = isinstance(error, _NOT_YET_ERRORS) or reason.startswith(NOT_YET)
    if isinstance(error, ResponseError) and not later:
        # it is there, and has a reason of its own: other calls may well succeed
        breaker.succeeded()
        return Unavailable(f"{what} refuses: {reason}")
    breaker.failed()
    return Unavailable(f"{what} does not answer: {reason}")


def says(answer: object, word: str = "") -> bool:
    """Whether an answer is an error, of this kind; those inside a script are quoted by Redis 6."""
    error = str(answer) if isinstance(answer, hiredis.ReplyError) else None
    return error is not None and (error.startswith(word) or f"-{word} " in error)
