"""The in-process cache of feature rows."""

from kirana.features.cache.feature_cache import FeatureCache

__all__ = ["FeatureCache"]
