"""The names that users may import, pinned so that none is added or removed by accident."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "kirana.client": {
        *("Accepted", "AsyncClient", "CatalogListing", "CatalogRecord", "Client", "Deleted"),
        *("Features", "FlowRun", "InteractionList", "Ranking", "Written"),
    },
    "kirana.codecs": {"CODECS", "STATUS_NAMES", "Codec", "Column", "Rows", "Status"},
    "kirana.codecs.packed": {"Packed"},
    "kirana.edge": {"Edge", "Limits", "Resources"},
    "kirana.features.cache": {"FeatureCache"},
    "kirana.features": {"EntityRows", "FeatureQuery", "FeatureSink", "FeatureSource", "Features"},
    "kirana.flow": {"FlowRequest", "FlowResult", "FlowRunner", "Span"},
    "kirana.flow.generators": {"GENERATORS", "Generator", "build_generator"},
    "kirana.flow.nodes": {"OPS"},
    "kirana.inferflow": {"InferRequest", "InferResult", "InferflowRunner"},
    "kirana.interactions": {"Event", "InteractionQuery", "InteractionSource", "Interactions"},
    "kirana.lmdb": {"Environment", "open_by_url", "open_environment"},
    "kirana.models": {"ModelRunner"},
    "kirana.stores": {
        *("FeatureStore", "open_feature_store"),
        *("RowBlock", "RowCodec", "RowKeys", "StoredRows", "Written"),
    },
}


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_exports_exactly_the_listed_names(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == PUBLIC[package]
    for name in module.__all__:
        assert hasattr(module, name)
