"""What the parts of one cache share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from cluster_kit.cache.loaders import Runner
    from cluster_kit.cache.options import CacheOptions
    from cluster_kit.cache.shelf import Shelf
    from cluster_kit.cache.stats import CacheStats
    from cluster_kit.clock import Clock
    from cluster_kit.ports import Emit
    from cluster_kit.supervisor import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the parts of a cache share.

    Attributes:
        shelf: where values are looked up and put.
        options: of the cache.
        supervisor: starts the loads.
        runner: calls loaders.
        clock: tells the time.
        random: for pauses.
        heard: whether other instances tell what they invalidate.
        promise_ttl: seconds after which another instance may load what a dead one promised.
        stats: counts.
        report: tells telemetry.
    """

    shelf: Shelf
    options: CacheOptions
    supervisor: Supervisor
    runner: Runner
    clock: Clock
    random: random.Random
    heard: bool
    promise_ttl: float
    stats: CacheStats
    report: Emit
