"""Commands of a Redis Cluster with plain results: values, numbers, the reply of one node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis
from redis.exceptions import ResponseError

from kirana.errors import Unavailable
from kirana.redis.cluster import ClusterClient
from kirana.redis.cluster_call import ClusterCall
from kirana.redis.commands import get_command
from kirana.redis.connection import values_of
from kirana.redis.servers import TIME, seconds_of


class ClusterValues(NamedTuple):
    """One value per key, None if there is none. Those at `missing` are missing for a `reason`."""

    values: Sequence[bytes | None]
    missing: list[int]
    reason: str


async def get_values(cluster: ClusterClient, keys: Sequence[bytes]) -> ClusterValues:
    """Read the values of keys. If a node does not answer, only its values are missing.

    Raise `Unavailable` if a node refuses a command, if the owners of the slots can't be found, or
    if the client is closed.
    """
    commands = list(map(get_command, keys))
    call = await cluster.call(keys, commands, strings=True, within_s=cluster.limit_s)
    replies, missing = list(call.replies), call.missing
    for position in missing:
        replies[position] = None
    try:
        return ClusterValues(values_of(replies), missing, _no_reply_message(cluster, call))
    except ResponseError as error:
        raise _refused(cluster, error) from error


async def sum_of_replies(
    cluster: ClusterClient, keys: Sequence[bytes], commands: Sequence[bytes], load: bytes = b""
) -> int:
    """Send one command per key. The replies are numbers. Return their sum.

    If the commands run a script, `load` is the command that loads the script. Raise `Unavailable`
    if a node does not answer or returns an error, if the owners of the slots can't be found, or if
    the client is closed.
    """
    call = await cluster.call(keys, commands, load=load)
    for reply in call.replies:
        if isinstance(reply, hiredis.ReplyError):
            raise _refused(cluster, reply)
    if call.missing:
        raise Unavailable(_no_reply_message(cluster, call))
    return sum(call.replies)


async def reply_of_node(cluster: ClusterClient, node: str, command: bytes) -> Any:
    """Send a command to a node, and return its reply.

    Raise `Unavailable` if the node does not answer or returns an error.
    """
    reply = await cluster.request_node(node, command)
    if isinstance(reply, hiredis.ReplyError):
        raise _refused(cluster, reply)
    return reply


async def replies_of_nodes(cluster: ClusterClient, command: bytes) -> list[Any]:
    """Send a command to each node that owns slots, and return the replies of those that answer.

    Raise `Unavailable` if none does.
    """
    nodes = sorted({*await cluster.owners()} - {""})
    results = await asyncio.gather(
        *(reply_of_node(cluster, node, command) for node in nodes), return_exceptions=True
    )
    replies = [reply for reply in results if not isinstance(reply, BaseException)]
    if not replies:
        raise Unavailable(f"{cluster.name} does not answer: no node replies")
    return replies


async def time_of_cluster(cluster: ClusterClient) -> float:
    """Return the time of the node whose clock is furthest from that of this machine, in seconds.

    Nodes that do not answer are left out.
    """
    times = map(seconds_of, await replies_of_nodes(cluster, TIME))
    return max(times, key=lambda time_s: abs(time_s - time.time()))


def _refused(cluster: ClusterClient, error: Exception) -> Unavailable:
    return Unavailable(f"{cluster.name} refused the command: {error}")


def _no_reply_message(cluster: ClusterClient, call: ClusterCall) -> str:
    return f"{cluster.name} does not answer: {call.reason}"
