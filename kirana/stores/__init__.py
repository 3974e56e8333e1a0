"""Feature stores: the protocol, one module per database, and a function that opens a URL."""

from kirana.stores.base import FeatureStore
from kirana.stores.open import open_feature_store
from kirana.stores.rows import RowBlock, RowCodec, RowKeys, StoredRows, Written

__all__ = [
    "FeatureStore",
    "RowBlock",
    "RowCodec",
    "RowKeys",
    "StoredRows",
    "Written",
    "open_feature_store",
]
