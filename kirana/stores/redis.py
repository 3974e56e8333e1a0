"""Features in Redis: one string a group and key, chosen by URL.

    redis://host:port/0                          one server; rediss:// with TLS
    redis+sentinel://host:port,host:port/name/0  the master that Sentinels know as `name`
    redis+cluster://host:port,host:port          a cluster

Options of redis-py go into the query, `?socket_timeout=0.2`. Needs Redis 6.2 or what speaks as it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from kirana.errors import ConfigurationError, Unavailable
from kirana.stores.base import ValueReader
from kirana.stores.breaker import Breaker

T = TypeVar("T")

DEFAULT_PORT = 6379
DEFAULT_TIMEOUT_S = 0.5
GUARDED_AT_ONCE = 200
"""Keys of one run of the script: Redis does nothing else meanwhile."""
MIN_GRACE_S = 60

_NUMBERS = ("socket_timeout", "socket_connect_timeout", "max_connections")
_TEXTS = (
    *("username", "password", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"),
    "ssl_check_hostname",
)

# ARGV: the codec; then for each key value, event time, 1 for a tombstone, and when it goes (ms)
_PUT = """
local function order_of(codec, value)
  if codec == 'packed' then
    if #value < 24 or string.byte(value, 1) ~= 1 then return 0, 0 end
    local time = 0
    for at = 24, 17, -1 do time = time * 256 + string.byte(value, at) end
    return time, string.byte(value, 2) % 2
  end
  local version, time = string.match(value, ';%d+;(%d+);(%d+);%x+$')
  if not version then version, time = string.match(value, ';%d+;(%d+);(%d+)$') end
  if not version then return 0, 0 end
  return tonumber(time), tonumber(version) == 0 and 1 or 0
end
local written = 0
for at, key in ipairs(KEYS) do
  local first = at * 4 - 2
  local old = redis.call('GET', key)
  local newer = true
  if old then
    local old_time, old_dead = order_of(ARGV[1], old)
    local time, dead = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
    newer = time > old_time or (time == old_time and dead >= old_dead)
  end
  if newer then
    if ARGV[first + 3] == '0' then
      redis.call('SET', key, ARGV[first])
    else
      redis.call('SET', key, ARGV[first], 'PXAT', ARGV[first + 3])
    end
    written = written + 1
  end
end
return written
"""


class RedisFeatureStore:
    """See `kirana.stores.base.FeatureStore`. A call is not atomic over more than some keys."""

    def __init__(
        self, client: Redis | RedisCluster, url: str, sentinels: Sequence[Redis] = ()
    ) -> None:
        self._client: Any = client
        self._sentinels = sentinels
        self._clustered = isinstance(client, RedisCluster)
        self._breaker = Breaker(f"{_shown(url)}")
        self._what = _shown(url)
        self._put = None if self._clustered else client.register_script(_PUT)

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisFeatureStore:
        try:
            client, sentinels = _client_of(url)
        except (ValueError, RedisError) as error:
            raise ConfigurationError(
                f"{setting}: '{_shown(url)}' can't be used: {error}", field=setting
            ) from None
        return cls(client, url, sentinels)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        return await self._guarded(lambda: self._read(keys))

    async def _read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None]
        if not self._clustered:
            found = await self._client.mget(keys)
            return found
        await self._client.initialize()
        pipeline = self._client.pipeline()
        for key in keys:
            pipeline.get(key)
        found = await pipeline.execute()
        return found

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], reader: ValueReader) -> int:
        rows = [
            (key, value, *_stamps(value, reader)) for key, value in zip(keys, values, strict=True)
        ]
        written = 0
        for at in range(0, len(rows), GUARDED_AT_ONCE):
            batch = rows[at : at + GUARDED_AT_ONCE]
            written += await self._guarded(lambda batch=batch: self._write(batch, reader.name))  # type: ignore[misc]
        return written

    async def _write(self, rows: Sequence[tuple[Any, ...]], codec: str) -> int:
        if self._put is not None:
            arguments = [part for row in rows for part in row[1:]]
            return int(await self._put(keys=[row[0] for row in rows], args=[codec, *arguments]))
        # keys of one script must be of one slot: a script a key, a pipeline a node
        await self._client.initialize()
        pipeline = self._client.pipeline()
        for key, *arguments in rows:
            pipeline.execute_command("EVAL", _PUT, 1, key, codec, *arguments)
        return sum(map(int, await pipeline.execute()))

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        self._breaker.check()
        try:
            found = await call()
        except (RedisError, OSError, TimeoutError) as error:
            self._breaker.failed()
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{self._what} does not answer: {reason}") from error
        self._breaker.succeeded()
        return found

    def health(self) -> dict[str, Any]:
        return {"store": self._what, "breaker": self._breaker.health()}

    async def close(self) -> None:
        for client in (self._client, *self._sentinels):
            await client.aclose()


def _stamps(value: bytes, reader: ValueReader) -> tuple[int, int, int]:
    """Return event time, whether it is a tombstone, and when Redis may forget it (ms; 0 never)."""
    time, dead = reader.order(value)
    expiry_s = reader.expiry_s(value)
    if not expiry_s:
        return time, int(dead), 0
    # the row outlives its expiry a little, so that it is seen to have expired
    grace_s = max((expiry_s - time // 1000) // 10, MIN_GRACE_S)
    return time, int(dead), (expiry_s + grace_s) * 1000


def _client_of(url: str) -> tuple[Redis | RedisCluster, Sequence[Redis]]:
    """Return a client, and those of the Sentinels that it asks.

    Raises `ValueError` for what is no URL of Redis.
    """
    parts = urlsplit(url)
    hosts = _hosts(parts.netloc.rpartition("@")[2])
    options: dict[str, Any] = {
        "socket_timeout": DEFAULT_TIMEOUT_S,
        "socket_connect_timeout": DEFAULT_TIMEOUT_S,
        **_options(parts.query),
        **_credentials(parts.netloc),
    }
    path = [unquote(each) for each in parts.path.split("/") if each]
    # one more attempt, for a connection that the server has closed meanwhile
    retry = Retry(NoBackoff(), 1)
    match parts.scheme:
        case "redis" | "rediss":
            if len(hosts) > 1:
                raise ValueError("several hosts are for redis+cluster:// and redis+sentinel://")
            host, port = hosts[0]
            tls: dict[str, Any] = {"ssl": True} if parts.scheme == "rediss" else {}
            database = _database(path)
            return Redis(host=host, port=port, db=database, retry=retry, **tls, **options), ()
        case "redis+sentinel":
            if not path:
                raise ValueError("the name of the master is missing: redis+sentinel://host/name")
            sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
                hosts, sentinel_kwargs=_sentinel_options(options), **options
            )
            client: Redis = sentinel.master_for(path[0], db=_database(path[1:]), retry=retry)
            return client, sentinel.sentinels
        case "redis+cluster":
            if path:
                raise ValueError("a cluster has no numbered databases")
            nodes = [ClusterNode(host, port) for host, port in hosts]
            return RedisCluster(startup_nodes=nodes, **options), ()
    raise ValueError(f"'{parts.scheme}' is no scheme of Redis")


def _hosts(text: str) -> list[tuple[str, int]]:
    hosts = []
    for each in text.split(","):
        host, colon, port = each.rpartition(":")
        if not colon:
            host, port = each, str(DEFAULT_PORT)
        if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError(f"'{each}' is not host:port")
        hosts.append((host.strip("[]"), int(port)))
    return hosts


def _credentials(netloc: str) -> dict[str, str]:
    user, colon, password = netloc.rpartition("@")[0].partition(":")
    found = {"username": unquote(user)} if user else {}
    return {**found, "password": unquote(password)} if colon else found


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in _NUMBERS:
            try:
                options[name] = int(text) if name == "max_connections" else float(text)
            except ValueError:
                raise ValueError(f"{name} must be a number, not '{text}'") from None
        elif name in _TEXTS:
            options[name] = text != "false" if name == "ssl_check_hostname" else text
        else:
            raise ValueError(f"unknown option '{name}': {', '.join((*_NUMBERS, *_TEXTS))}")
    return options


def _database(path: Sequence[str]) -> int:
    if not path:
        return 0
    if len(path) > 1 or not (path[0].isascii() and path[0].isdecimal()):
        raise ValueError(f"'{'/'.join(path)}' is no number of a database")
    return int(path[0])


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Sentinels are asked without the master's own credentials."""
    return {name: each for name, each in options.items() if name not in ("username", "password")}


def _shown(url: str) -> str:
    """Return a URL without its password, for messages."""
    scheme, separator, rest = url.partition("://")
    before, at, after = rest.rpartition("@")
    return f"{scheme}{separator}{before.partition(':')[0]}{at}{after}" if at else url
