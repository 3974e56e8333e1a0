"""Open a feature store by its URL."""

from __future__ import annotations

from kirana.drivers import driver_of
from kirana.errors import ConfigurationError
from kirana.stores.base import FeatureStore
from kirana.stores.hot.base import HotTier
from kirana.urls import scheme_of, without_password


def open_feature_store(url: str, *, setting: str = "features") -> FeatureStore:
    """Open the feature store that `url` names.

    A store on Redis or Cassandra connects at its first call. Raise `ConfigurationError` if the URL
    is not valid, if the driver of the database is not installed, or if the LMDB folder can't be
    opened. The error names `setting` as the setting that holds the URL.
    """
    scheme = scheme_of(url)
    match scheme:
        case "lmdb":
            with driver_of("lmdb", "lmdb", setting=setting):
                from kirana.stores.lmdb import LmdbFeatureStore

            return LmdbFeatureStore.open(url, setting=setting)
        case "memory" if url == "memory://":
            from kirana.stores.memory import MemoryFeatureStore

            return MemoryFeatureStore()
        case "redis+cluster" | "rediss+cluster":
            with driver_of(scheme, "redis", "hiredis", setting=setting):
                from kirana.stores.redis_cluster import RedisClusterFeatureStore

            return RedisClusterFeatureStore.open(url, setting=setting)
        case "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel":
            with driver_of(scheme, "redis", "hiredis", setting=setting):
                from kirana.stores.redis import RedisFeatureStore

            return RedisFeatureStore.open(url, setting=setting)
        case "cassandra" | "scylla":
            with driver_of(scheme, "cassandra", setting=setting):
                from kirana.stores.cassandra import CassandraFeatureStore

            return CassandraFeatureStore.open(url, setting=setting)
        case _:
            raise ConfigurationError(
                f"{setting}: '{without_password(url)}' is not the URL of a feature store: use "
                "lmdb:///absolute/folder, cassandra://host:port/keyspace, redis://host:port, "
                "redis+cluster://host:port, redis+sentinel://host:port/name or memory:// "
                "(rediss instead of redis for TLS)",
                field=setting,
            )


def open_hot_tier(url: str, *, setting: str = "features_hot") -> HotTier:
    """Open the hot tier that `url` names, without connecting yet.

    Raise `ConfigurationError` if the URL is not valid or the driver is not installed. The error
    names `setting` as the setting that holds the URL.
    """
    scheme = scheme_of(url)
    match scheme:
        case "redis+cluster" | "rediss+cluster":
            with driver_of(scheme, "redis", "hiredis", setting=setting):
                from kirana.redis.cluster import ClusterClient
                from kirana.stores.hot.redis import RedisHotTier
                from kirana.stores.hot.redis_cluster import HotCluster

            return RedisHotTier(HotCluster(ClusterClient.open(url, setting=setting)))
        case "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel":
            with driver_of(scheme, "redis", "hiredis", setting=setting):
                from kirana.redis.server import RedisServer
                from kirana.stores.hot.redis import RedisHotTier
                from kirana.stores.hot.redis_single import SingleHotServer

            return RedisHotTier(SingleHotServer(RedisServer.open(url, setting=setting)))
        case _:
            raise ConfigurationError(
                f"{setting}: '{without_password(url)}' is not the URL of a hot tier: use "
                "redis://host:port, redis+cluster://host:port or redis+sentinel://host:port/name "
                "(rediss instead of redis for TLS), or 'off'",
                field=setting,
            )
