"""A Redis server, or the master that Redis Sentinel names, behind a breaker and one connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from kirana.breaker import Breaker
from kirana.redis.connection import ARRAY
from kirana.redis.errors import FAILURES, is_error, unavailable
from kirana.redis.servers import TIME, seconds_of
from kirana.redis.shared_connection import SharedConnection
from kirana.redis.url import call_limit_s, client_of
from kirana.urls import usable, without_password

T = TypeVar("T")

MAX_ATTEMPTS = 4
"""Maximum number of times that one command is sent.

The former and the new master may both lack the script, so each of them may need two attempts.
"""


class RedisServer:
    """Sends commands to one server. Each method raises `Unavailable` if it does not answer.

    `client` is the client of redis-py, which opens other connections to the server.
    """

    def __init__(
        self, client: Redis, url: str, timeout_s: float, sentinels: Sequence[Redis] = ()
    ) -> None:
        """Use `client`, which finds the master through `sentinels` if there are any.

        `timeout_s` limits the wait for one reply. A call may take longer, because it may have to
        find the server first (see `call_limit_s`).
        """
        self.client: Any = client
        self.name = without_password(url)
        self._sentinels = sentinels
        self._breaker = Breaker(self.name)
        connect = client.connection_pool.make_connection
        self._connection = SharedConnection(connect, call_limit_s(timeout_s), self._breaker.failed)

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisServer:
        """Return the server at a URL, without connecting yet.

        Raise `ConfigurationError` for `setting` if the URL is not valid.
        """
        with usable(url, setting=setting, errors=(ValueError, RedisError)):
            client, sentinels, timeout_s = client_of(url)
        return cls(client, url, timeout_s, sentinels)

    async def array(self, command: bytes, count: int) -> Sequence[bytes | None]:
        """Send an `MGET` for `count` keys, and return the values, None for missing ones."""

        async def read() -> Sequence[bytes | None]:
            values = await self._connection.values(command, ARRAY)
            if len(values) != count:
                # The values can't be matched with their keys.
                raise ConnectionError(f"the reply has {len(values)} values for {count} keys")
            return values

        return await self.with_breaker(read)

    async def number(self, command: bytes, load: bytes | None = None) -> int:
        """Send a command whose reply is a number. Return the number.

        If the command runs a script, `load` is the command that loads the script. It is sent if
        the server lacks the script.
        """
        return await self.with_breaker(lambda: self._number(command, load))

    async def _number(self, command: bytes, load: bytes | None) -> int:
        for _ in range(MAX_ATTEMPTS):
            (reply,) = await self._connection.request(command, 1)
            if load is not None and is_error(reply, "NOSCRIPT"):
                # For example, the server has restarted, or was a replica until now.
                (reply,) = await self._connection.request(load, 1)
                if is_error(reply):
                    break
            elif not is_error(reply, "READONLY") or not self._connection.reconnect():
                # A former master replies READONLY. Send the command again only over a new
                # connection. With Sentinel, the new connection leads to the current master.
                break
        if not isinstance(reply, int):
            raise ResponseError(str(reply))
        return reply

    async def reply(self, command: bytes) -> Any:
        """Send a command and return its reply."""

        async def request() -> Any:
            (reply,) = await self._connection.request(command, 1)
            if is_error(reply):
                raise ResponseError(str(reply))
            return reply

        return await self.with_breaker(request)

    async def time_s(self) -> float:
        """Return the time of the server in Unix seconds."""
        return seconds_of(await self.reply(TIME))

    async def with_breaker(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call `call` and return its result. Raise `Unavailable` for any of `FAILURES`.

        If the breaker refuses the call, raise `Unavailable` without it.
        """
        self._breaker.check()
        try:
            result = await call()
        except FAILURES as error:
            raise unavailable(self.name, error, self._breaker) from error
        self._breaker.succeeded()
        return result

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, and the state of the breaker."""
        return {"store": self.name, "breaker": self._breaker.health()}

    async def close(self) -> None:
        """Close the connections to the server and its Sentinels. No-op if already closed."""
        await self._connection.close()
        for client in (self.client, *self._sentinels):
            await client.aclose()
