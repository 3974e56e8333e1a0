"""Feature stores: the protocol, one module per database, and a function that opens a URL."""

from kirana.stores.base import FeatureStore, HotFeatureStore
from kirana.stores.open import open_feature_store
from kirana.stores.rows import RowBlock, RowCodec, RowKeys, StoredRows, Written

__all__ = [
    "FeatureStore",
    "HotFeatureStore",
    "RowBlock",
    "RowCodec",
    "RowKeys",
    "StoredRows",
    "Written",
    "open_feature_store",
]
