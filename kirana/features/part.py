"""The declaration of the features part."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from kirana.errors import ConfigurationError
from kirana.features.source import Features
from kirana.part import Part, StoreSetting, Wiring
from kirana.stores.tables import tables_of
from kirana.urls import scheme_of


class FeatureSettings(BaseModel):
    """Settings of the features part.

    `features` is the URL of the store. If rows can't be read, `features_unavailable` decides
    whether reads fail, or return defaults with the status "unavailable". Each replica caches about
    `cache_bytes` of rows (0 for no cache), and uses a row for `cache_fresh_ms` milliseconds from
    the start of its fetch. Rows of an LMDB or memory store are not cached.
    """

    features: str
    features_unavailable: Literal["defaults", "error"] = "defaults"
    cache_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    cache_fresh_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 1_000


def _build(wiring: Wiring) -> Features:
    from kirana.features.cache import FeatureCache
    from kirana.features.service import FeatureService
    from kirana.stores import open_feature_store

    settings = wiring.settings(FeatureSettings)
    # Reads of an LMDB or memory store need no network, so their rows are not cached.
    local = scheme_of(settings.features) in ("lmdb", "memory")
    with_cache = settings.cache_bytes and not local
    service = FeatureService(
        open_feature_store(settings.features),
        wiring.source,
        cache=FeatureCache(settings.cache_bytes, settings.cache_fresh_ms / 1000)
        if with_cache
        else None,
        fail_when_unavailable=settings.features_unavailable == "error",
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
    finally:
        await store.close()
    if answer.unavailable is not None:
        raise ConfigurationError(f"features: {answer.reason}", field="features")


FEATURES = Part(
    name="features",
    deployment="FeatureStore",
    protocol=Features,
    build=_build,
    settings=FeatureSettings,
    stores=(StoreSetting("features", "feature store", _check, tables_of),),
)
