"""The test harness: servers, clusters, faults, a clock to turn, and the contracts of adapters.

Installed with the extra ``testing``. pytest finds `cluster_kit.testing.plugin` by itself; its
fixtures start nothing until a test asks for them.
"""

from __future__ import annotations

from cluster_kit.testing.history import assert_dead_lettered, assert_processed, assert_published

__all__ = ["assert_dead_lettered", "assert_processed", "assert_published"]
