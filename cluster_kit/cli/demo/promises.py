"""Everything the demo shows, in its order. Nothing of it is taken for granted."""

from __future__ import annotations

from cluster_kit.cli.demo.broadcasts import BROADCASTS
from cluster_kit.cli.demo.caching import CACHING
from cluster_kit.cli.demo.locking import LOCKING
from cluster_kit.cli.demo.syncing import SYNCING
from cluster_kit.cli.demo.tasks import ENDINGS, TASKS

PROMISES = (*TASKS, *BROADCASTS, *SYNCING, *CACHING, *LOCKING, *ENDINGS)
