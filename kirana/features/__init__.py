"""Feature reads and writes: the protocols and data types that other parts use."""

from kirana.features.source import EntityRows, FeatureQuery, Features, FeatureSink, FeatureSource

__all__ = ["EntityRows", "FeatureQuery", "FeatureSink", "FeatureSource", "Features"]
