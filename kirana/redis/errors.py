"""Classify the errors of Redis and its clients."""

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
"""The exceptions that redis-py, sockets and `Connection` raise."""

TEMPORARY_ERRORS = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
"""The first words of the error replies of a server that can't serve a command at the moment."""

_TEMPORARY_ERROR_TYPES = (ClusterDownError, MasterDownError, TryAgainError)
"""The exceptions that redis-py raises for some of these replies, without the first word."""


class ReplyTooSlow(TimeoutError):
    """A request that timed out behind a very large reply on the same connection.

    It says nothing about the server, which answers other requests.
    """


def unavailable(name: str, error: Exception, breaker: Breaker) -> Unavailable:
    """Return the `Unavailable` to raise for `error`, and record the failure in the breaker.

    `name` stands for the server in the message. An error reply that is not temporary counts as a
    success, because the server works. `ReplyTooSlow` counts as neither. Any other error counts as a
    failure of the server.
    """
    reason = str(error) or type(error).__name__
    is_temporary = isinstance(error, _TEMPORARY_ERROR_TYPES) or reason.startswith(TEMPORARY_ERRORS)
    if isinstance(error, ResponseError) and not is_temporary:
        breaker.succeeded()
        return Unavailable(f"{name} refused the command: {reason}")
    if isinstance(error, ReplyTooSlow):
        return Unavailable(f"{name} did not answer in time: {reason}")
    breaker.failed()
    return Unavailable(f"{name} does not answer: {reason}")


def is_error(reply: object, code: str = "") -> bool:
    """Return whether `reply` is an error reply with this code, or with any code if `code` is "".

    The code is the first word of an error. If a command in a script fails, Redis 6 returns an error
    that quotes the error of the command after a `-`. The code of the quoted error counts, too.
    """
    error = str(reply) if isinstance(reply, hiredis.ReplyError) else None
    return error is not None and (error.startswith(code) or f"-{code} " in error)
