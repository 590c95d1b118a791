"""Counters of a cache in this instance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class CacheStats:
    """What one cache did in this instance since it was made; the last four are now.

    Attributes:
        local_hits: values found in this process.
        store_hits: values found in the store.
        misses: look-ups that found none.
        loads: runs of loaders, failed ones included.
        failures: loaders that failed.
        joined: callers that waited for a load another had begun.
        refused: values that were loaded, but not kept, for they were invalidated meanwhile.
        stale: answers that were a value which is over, in the place of one that could not be
            loaded.
        corrupt: times the store held bytes that were no entry.
        unavailable: calls of the store that failed.
        gaps: times invalidations may have been missed, so that all held here was dropped.
        invalidations: those of this instance.
        loading: loads under way, those in the background included.
        entries: held in this process.
        bytes: they take about.
        unsent: invalidations that store or other instances have not been told of yet.
    """

    local_hits: int = 0
    store_hits: int = 0
    misses: int = 0
    loads: int = 0
    failures: int = 0
    joined: int = 0
    refused: int = 0
    stale: int = 0
    corrupt: int = 0
    unavailable: int = 0
    gaps: int = 0
    invalidations: int = 0
    loading: int = 0
    entries: int = 0
    bytes: int = 0
    unsent: int = 0
