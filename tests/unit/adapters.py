"""An adapter whose faults a test can order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectError
from cluster_kit.ports import AdapterSpec
from cluster_kit_memory.event_queue import MemoryEventQueue

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.ports import AdapterContext

SCHEME = "faulty"


class FaultyQueue(MemoryEventQueue):
    """The memory adapter with faults.

    `log` has what was called; `refuses` and `close_fails` say what goes wrong.
    """

    def __init__(self, url: str, context: AdapterContext, faults: Faults) -> None:
        hub = url.removeprefix(f"{SCHEME}://").rpartition("@")[2]
        super().__init__(f"memory://{hub}", context)
        self._url = url
        self._faults = faults

    async def connect(self) -> None:
        self._faults.log.append("connect")
        if self._faults.refuses:
            raise ConnectError(self._url, f"nobody answers at {self._url}")
        await super().connect()

    async def close(self) -> None:
        self._faults.log.append("close")
        await super().close()
        if self._faults.close_fails:
            raise self._faults.close_fails


class Faults:
    """Orders faults for the adapters of one cluster, which has URL ``faulty://…``."""

    def __init__(self, cluster: Cluster) -> None:
        self.log: list[str] = []
        self.refuses = False
        self.close_fails: Exception | None = None
        self.made: list[FaultyQueue] = []
        spec = AdapterSpec(name=SCHEME, schemes=(SCHEME,), event_queue=self._make)
        cluster.registry.register(spec)

    def _make(self, url: str, context: AdapterContext) -> FaultyQueue:
        self.made.append(FaultyQueue(url, context, self))
        return self.made[-1]
