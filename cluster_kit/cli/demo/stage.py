"""The instances of the demo, and the one who watches them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from cluster_kit.cli.demo.journal import PATIENCE, BrokenPromise, Journal, Kind
from cluster_kit.cli.demo.workload import CHANNELS, CRASH_LIMIT
from cluster_kit.cluster import Cluster
from cluster_kit.errors import ClusterKitError, LifecycleError
from cluster_kit.settings import EventQueueSettings, Settings
from cluster_kit.supervisor import Supervisor

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

    from cluster_kit.message import DeadLetter

APP = "cluster-kit-demo"
"""Application of the demo; on a broker its queues stay, empty, for the next one."""

ALIVE: tuple[Kind, ...] = ("started", "run")
"""What only an instance reports that takes tasks."""

POLL = 0.1
"""Seconds between two looks at the dead letters."""


class Instance(Protocol):
    """One instance of the demo's application."""

    name: str

    async def start(self) -> None:
        """Start it; it reports ``started``."""
        ...

    async def stop(self) -> None:
        """Drain it; it reports ``stopped``."""
        ...

    async def crash(self) -> None:
        """Let it die as a process dies: without a word, in the middle of its work."""
        ...

    async def died(self) -> bool:
        """Whether it is dead, or is within `PATIENCE`."""
        ...

    async def fix(self) -> None:
        """Repair its faulty handler; it reports ``fixed``."""
        ...

    async def close(self) -> None:
        """End it, whatever it is doing. Idempotent."""
        ...


MakeInstance = Callable[[str, Journal], Instance]


class DemoSettings(Settings):
    """Settings that neither variables nor a ``.env`` file have a say in."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments alone; part of the interface of pydantic-settings."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def demo_settings(url: str, instance_id: str | None) -> Settings:
    """Return the settings of an instance."""
    return DemoSettings(
        app=APP,
        event_queue=EventQueueSettings(url=url, crash_limit=CRASH_LIMIT),
        drain_timeout=10.0,
        instance_id=instance_id,
    )


class Stage:
    """Starts instances, gives them tasks, and looks at what becomes of these.

    Attributes:
        journal: what the instances report.
        instances: those that are alive.
        queue: as a client sees it that runs nothing itself.
        delays: seconds; long enough for their order to be told from the time publishing takes.

    Args:
        url: of the broker.
        make: an instance.
        delays: see above.
    """

    def __init__(self, url: str, make: MakeInstance, *, delays: Sequence[float]) -> None:
        self.journal = Journal()
        self.instances: list[Instance] = []
        self._client = Cluster(APP, settings=demo_settings(url, None))
        self.queue = self._client.event_queue
        self.delays = delays
        self._make = make
        self._made: list[Instance] = []

    async def open(self, count: int) -> None:
        """Connect, clear away what an earlier demo left, and start `count` instances.

        Raises:
            ClusterKitError: no connection, or another demo runs on this broker.
        """
        await self._client.start()
        await self._clear(others=True)
        await self._all([self.add_instance] * count)

    async def close(self) -> None:
        """End the instances, drop what is left in the queues, and disconnect."""
        await self._all([instance.close for instance in self._made])
        self.instances.clear()
        try:
            await self._clear(others=False)
        except LifecycleError:
            return  # it never came to be connected
        finally:
            await self._client.stop()

    async def add_instance(self) -> None:
        """Start one more."""
        instance = self._make(f"instance-{len(self._made) + 1}", self.journal)
        self._made.append(instance)
        await instance.start()
        await self.journal.until(
            # A task may come, and take it down, before it could say that it is started.
            lambda: any(instance.name in self.journal.instances(kind) for kind in ALIVE),
            f"{instance.name} did not start",
        )
        self.instances.append(instance)

    def take_out(self, name: str) -> Instance:
        """Return an instance that is about to end; it counts as alive no more."""
        instance = next(instance for instance in self.instances if instance.name == name)
        self.instances.remove(instance)
        return instance

    async def dead_letters(self, channel: str, ids: Sequence[str]) -> list[DeadLetter]:
        """Wait until every task is among the dead letters, and return these.

        Raises:
            BrokenPromise: some do not come.
        """
        box = self.queue.dead_letters(channel)
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    letters = [letter for letter in await box.browse() if letter.id in ids]
                    if {letter.id for letter in letters} == set(ids):
                        return letters
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise BrokenPromise(f"no dead letter within {PATIENCE:g} s") from None

    async def _all(self, calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Make all calls at once; raise the first error, once all have ended."""
        for result in await Supervisor().run_all(calls, limit=max(len(calls), 1)):
            if result is not None:
                raise result

    async def _clear(self, *, others: bool) -> None:
        for channel in CHANNELS:
            depth = await self.queue.depth(channel)
            if depth is None:
                continue
            if others and depth.consumers:
                raise ClusterKitError(f"another demo is running on this broker, as {APP!r}")
            await self.queue.purge(channel)
            if depth.dead:
                await self.queue.dead_letters(channel).discard()
