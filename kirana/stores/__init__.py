"""Where rows live: one protocol, one database a file, chosen by URL."""

from kirana.stores.base import FeatureStore, RowCodec
from kirana.stores.open import open_feature_store

__all__ = ["FeatureStore", "RowCodec", "open_feature_store"]
