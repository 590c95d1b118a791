"""What the caches of an instance share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

    from cluster_kit.after_commit import AfterCommit
    from cluster_kit.cache.loaders import Runner
    from cluster_kit.clock import Clock
    from cluster_kit.loops import OwnLoop
    from cluster_kit.ports import Emit
    from cluster_kit.settings import CacheSettings
    from cluster_kit.supervisor import Supervisor


class CacheContext(NamedTuple):
    """What the caches of an instance share.

    Attributes:
        app: name of the application.
        settings: of the caches.
        supervisor: starts what runs in the background.
        runner: calls loaders.
        clock: tells the time.
        random: for jitter and pauses.
        loop: where they may be used.
        report: tells telemetry.
        after_commit: takes invalidations into transactions.
    """

    app: str
    settings: CacheSettings
    supervisor: Supervisor
    runner: Runner
    clock: Clock
    random: random.Random
    loop: OwnLoop
    report: Emit
    after_commit: AfterCommit
