"""Classify the errors of Cassandra and its driver."""

from __future__ import annotations

from cassandra import AuthenticationFailed, DriverException, RequestValidationException
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException

from kirana.breaker import Breaker
from kirana.errors import Unavailable

FAILURES = (DriverException, NoHostAvailable, ConnectionException, OSError)
"""The exceptions that the driver raises for a failed call."""


def is_refusal(error: Exception) -> bool:
    """Return whether a server refused the request, which it would do again."""
    return isinstance(error, RequestValidationException)


def is_missing(error: Exception) -> bool:
    """Return whether a server refused the request because the keyspace or the table is missing."""
    reason = str(error)
    return is_refusal(error) and ("does not exist" in reason or "unconfigured table" in reason)


def message_of(name: str, error: Exception) -> str:
    """Return what a failed call means for the caller. `name` stands for the cluster."""
    if is_missing(error):
        return f"{name} lacks a table: run 'kirana apply' ({_reason(error)})"
    if is_refusal(error):
        return f"{name} refused the request: {_reason(error)}"
    if isinstance(_of_one_node(error)[1], AuthenticationFailed):
        return f"{name} refused the user or the password: {_reason(error)}"
    return f"{name} does not answer: {_reason(error)}"


def unavailable(name: str, error: Exception, breaker: Breaker) -> Unavailable:
    """Return the `Unavailable` to raise for `error`, and record the failure in the breaker.

    A refusal counts as a success, because the cluster works.
    """
    if is_refusal(error):
        breaker.succeeded()
    else:
        breaker.failed()
    return Unavailable(message_of(name, error))


def _of_one_node(error: Exception) -> tuple[str, Exception]:
    """Return the name and the error of one node if all nodes failed; otherwise "" and `error`."""
    if isinstance(error, NoHostAvailable) and isinstance(error.errors, dict) and error.errors:
        node, of_node = next(iter(error.errors.items()))
        return str(node), of_node
    return "", error


def _reason(error: Exception) -> str:
    """Return the text of an error. If all nodes failed, it is the text of one node's error."""
    node, of_node = _of_one_node(error)
    return f"{node}: {of_node}" if node else str(error) or type(error).__name__
