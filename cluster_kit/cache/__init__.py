"""Caches: in this process, in a store, or both, and never what they were told to forget."""

from __future__ import annotations

from cluster_kit.cache.cache import Cache
from cluster_kit.cache.loaders import loaded
from cluster_kit.cache.options import CacheOptions
from cluster_kit.cache.recipe import CachedFunction
from cluster_kit.cache.service import CacheManager
from cluster_kit.cache.stats import CacheStats
from cluster_kit.cache.values import MISSING

__all__ = [
    "MISSING",
    "Cache",
    "CacheManager",
    "CacheOptions",
    "CacheStats",
    "CachedFunction",
    "loaded",
]
