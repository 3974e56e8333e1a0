"""The declaration of the features part."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from kirana.errors import ConfigurationError, Unavailable
from kirana.features.source import Features
from kirana.metrics import Metrics
from kirana.part import OFF, Part, StoreSetting, Wiring
from kirana.stores import FeatureStore
from kirana.stores.tables import tables_of
from kirana.urls import scheme_of, usable

DURABLE = ("lmdb", "cassandra", "scylla")
"""The schemes of stores that a hot tier may stand before."""


class FeatureSettings(BaseModel):
    """Settings of the features part.

    `features` is the URL of the store. If rows can't be read, `features_unavailable` decides
    whether reads fail, or return defaults with the status "unavailable". Each replica caches about
    `cache_bytes` of rows (0 for no cache), and uses a row for `cache_fresh_ms` milliseconds from
    the start of its fetch. Rows of an LMDB or memory store are not cached.

    `features_hot` is the URL of a hot tier, which holds copies of rows for at most
    `features_hot_ttl_s` seconds. After a fault, such as a Redis that did not answer a writer, a
    copy may be read for `features_hot_bound_s` seconds although its row was replaced.
    """

    features: str
    features_hot: str = OFF
    features_hot_ttl_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = 86_400
    features_hot_bound_s: Annotated[float, Field(ge=1, le=3_600)] = 60
    features_unavailable: Literal["defaults", "error"] = "defaults"
    cache_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    cache_fresh_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 1_000


def open_store(settings: FeatureSettings, metrics: Metrics | None = None) -> FeatureStore:
    """Open the feature store that the settings name, with its hot tier if there is one.

    Raise a `ConfigurationError` that names the setting if a URL can't be used.
    """
    from kirana.stores import open_feature_store
    from kirana.stores.open import open_hot_tier
    from kirana.stores.tiered import TieredFeatureStore

    if settings.features_hot == OFF:
        return open_feature_store(settings.features)
    if scheme_of(settings.features) not in DURABLE:
        raise ConfigurationError(
            "features_hot: a hot tier needs a durable store behind it: use lmdb:// or cassandra:// "
            "for the features, or no hot tier",
            field="features_hot",
        )
    hot = open_hot_tier(settings.features_hot)
    if scheme_of(settings.features) != "lmdb":
        require_overlap(settings.features)
    return TieredFeatureStore(
        open_feature_store(settings.features),
        hot,
        ttl_s=settings.features_hot_ttl_s,
        bound_s=settings.features_hot_bound_s,
        metrics=metrics,
    )


def require_overlap(url: str) -> None:
    """Raise `ConfigurationError` if reads of a Cassandra may miss writes that were acknowledged.

    A copy of such a read would hide the write for a long time.
    """
    from kirana.cassandra.url import CassandraUrl

    with usable(url, setting="features"):
        levels = CassandraUrl.parse(url)
    if not levels.reads_see_writes:
        raise ConfigurationError(
            f"features: with a hot tier, each read must see all acknowledged writes, but read="
            f"{levels.read_consistency} and write={levels.write_consistency} may not: use "
            "LOCAL_QUORUM for both",
            field="features",
        )


def _build(wiring: Wiring) -> Features:
    from kirana.features.cache import FeatureCache
    from kirana.features.service import FeatureService

    settings = wiring.settings(FeatureSettings)
    # Reads of an LMDB or memory store need no network, so their rows are not cached.
    local = settings.features_hot == OFF and scheme_of(settings.features) in ("lmdb", "memory")
    with_cache = settings.cache_bytes and not local
    service = FeatureService(
        open_store(settings, wiring.metrics),
        wiring.source,
        cache=FeatureCache(settings.cache_bytes, settings.cache_fresh_ms / 1000)
        if with_cache
        else None,
        fail_when_unavailable=settings.features_unavailable == "error",
        metrics=wiring.metrics,
    )
    wiring.on_close(service.close)
    return service


async def _check(url: str) -> None:
    """Raise `ConfigurationError` if the store at `url` can't be opened or does not answer."""
    from kirana.stores import open_feature_store
    from kirana.stores.base import PROBE

    store = open_feature_store(url)
    try:
        (answer,) = await store.read([PROBE])
        await store.ping()
        health = store.health()
    finally:
        await store.close()
    if answer.unavailable is not None:
        raise ConfigurationError(f"features: {answer.reason}", field="features")
    if "clock" in health:
        raise ConfigurationError(f"features: {health['clock']}", field="features")


async def _check_hot(url: str) -> None:
    """Raise `ConfigurationError` if the hot tier at `url` can't be opened or does not answer."""
    from kirana.stores.open import open_hot_tier

    hot = open_hot_tier(url)
    try:
        await hot.servers()
    except Unavailable as error:
        raise ConfigurationError(f"features_hot: {error.message}", field="features_hot") from None
    finally:
        await hot.close()


FEATURES = Part(
    name="features",
    deployment="FeatureStore",
    protocol=Features,
    build=_build,
    settings=FeatureSettings,
    stores=(
        StoreSetting("features", "feature store", _check, tables_of),
        StoreSetting("features_hot", "hot tier of the features", _check_hot, optional=True),
    ),
)
