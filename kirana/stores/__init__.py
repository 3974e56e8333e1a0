"""Where rows live: one protocol, one database a file, chosen by URL."""

from kirana.stores.base import FeatureStore, ValueReader
from kirana.stores.open import open_feature_store

__all__ = ["FeatureStore", "ValueReader", "open_feature_store"]
