"""Where rows live: one protocol, one database a file, chosen by URL."""

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
