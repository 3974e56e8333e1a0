"""Classify the errors of Kafka and its client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors as kafka

from kirana.errors import Unavailable

FAILURES = (kafka.KafkaError, OSError, asyncio.TimeoutError)
"""The exceptions that the client raises for a failed call."""

_REFUSALS = (
    kafka.AuthenticationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
)


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Raise `Unavailable` instead of the errors in `FAILURES`. `name` stands for the cluster."""
    try:
        yield
    except FAILURES as error:
        raise Unavailable(message_of(name, error)) from error


def message_of(name: str, error: Exception) -> str:
    """Return what a failed call means for the caller."""
    reason = str(error) or type(error).__name__
    if isinstance(error, _REFUSALS):
        return f"{name} refused the user or the password: {reason}"
    if isinstance(error, kafka.UnknownTopicOrPartitionError):
        return f"{name} lacks the topic: run 'kirana apply' ({reason})"
    return f"{name} does not answer: {reason}"
