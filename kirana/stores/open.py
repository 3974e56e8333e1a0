"""From a URL to a feature store."""

from __future__ import annotations

from kirana.drivers import driver_of
from kirana.errors import ConfigurationError
from kirana.stores.base import FeatureStore
from kirana.urls import scheme_of, without_password


def open_feature_store(url: str, *, setting: str = "features") -> FeatureStore:
    """Open what `url` names. Raises `ConfigurationError` if it can't be."""
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
        case _:
            raise ConfigurationError(
                f"{setting}: '{without_password(url)}' is not the URL of a store: use "
                "lmdb:///absolute/folder, redis://host:port, redis+cluster://, "
                "redis+sentinel:// (each with TLS as rediss), or memory://",
                field=setting,
            )
