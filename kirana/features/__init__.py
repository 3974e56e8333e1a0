"""The online feature store: reads as matrices, writes as whole groups."""

from kirana.features.source import EntityRows, FeatureQuery, Features, FeatureSink, FeatureSource

__all__ = ["EntityRows", "FeatureQuery", "FeatureSink", "FeatureSource", "Features"]
