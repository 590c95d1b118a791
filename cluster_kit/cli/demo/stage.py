"""The instances of the demo, and the one who watches them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from cluster_kit.cli.demo.journal import BrokenPromise, Journal, Kind
from cluster_kit.cli.demo.settings import APP, MEMORY, demo_settings
from cluster_kit.cli.demo.task_handlers import CHANNELS
from cluster_kit.cluster import Cluster
from cluster_kit.errors import ClusterKitError, LifecycleError
from cluster_kit.supervisor import Supervisor
from cluster_kit.urls import url_scheme

if TYPE_CHECKING:
    from cluster_kit.message import DeadLetter

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
        """Whether it is dead, or is within the journal's patience."""
        ...

    def tell(self, order: str, **about: object) -> None:
        """Have it do something, and report what comes of it."""
        ...

    async def cut(self) -> None:
        """Cut its connections, again and again until `mend`; it reports ``cut``."""
        ...

    async def mend(self) -> None:
        """Let it connect again; it reports ``mended``."""
        ...

    async def close(self) -> None:
        """End it, whatever it is doing. Idempotent."""
        ...


MakeInstance = Callable[[str, Journal], Instance]


class Stage:
    """Starts instances, gives them tasks, and looks at what becomes of these.

    Attributes:
        journal: what the instances report.
        instances: those that are alive.
        client: publishes, and runs nothing itself.
        queue: of the client.
        delays: seconds; long enough for their order to be told from the time publishing takes.
        shared_store: whether what instances cache is in one store, and not in each of them.
        hand_over: seconds by which who takes a lost lock over may be ahead of who lost it. A
            broker tells both in the moment in which a connection ends, each over its own.

    Args:
        url: of the broker.
        make: an instance.
    """

    def __init__(self, url: str, make: MakeInstance) -> None:
        local = url_scheme(url) == MEMORY
        self.journal = Journal()
        self.instances: list[Instance] = []
        self.client = Cluster(APP, settings=demo_settings(url, None))
        self.queue = self.client.event_queue
        self.delays: Sequence[float] = (1.0, 0.5, 0.2) if local else (5.0, 1.0, 0.2)
        self.shared_store = local
        self.hand_over: float = 0.0 if local else 1.0
        self._make = make
        self._made: list[Instance] = []
        self._wanted = 0
        self._told: Counter[tuple[Kind, str]] = Counter()

    @property
    def names(self) -> list[str]:
        """Return the names of those that are alive."""
        return [instance.name for instance in self.instances]

    async def open(self, count: int) -> None:
        """Connect, clear away what an earlier demo left, and start `count` instances.

        Raises:
            ClusterKitError: no connection, or another demo runs on this broker.
        """
        await self.client.start()
        await self._clear(others=True)
        self._wanted = count
        await self.fill_up()

    async def close(self) -> None:
        """End the instances, drop what is left in the queues, and disconnect."""
        await self._all([instance.close for instance in self._made])
        self.instances.clear()
        try:
            await self._clear(others=False)
        except LifecycleError:
            return  # it never came to be connected
        finally:
            await self.client.stop()

    async def fill_up(self, more: int = 0) -> None:
        """Start as many as are missing of those there were at first, and `more`."""
        missing = self._wanted + more - len(self.instances)
        await self._all([self._add_instance] * missing)

    async def _add_instance(self) -> None:
        instance = self._make(f"instance-{len(self._made) + 1}", self.journal)
        self._made.append(instance)
        await instance.start()
        await self.journal.until(
            # A task may come, and take it down, before it could say that it is started.
            lambda: any(instance.name in self.journal.instances(kind) for kind in ALIVE),
            f"{instance.name} did not start",
        )
        self.instances.append(instance)

    def tell_all(self, order: str, **about: object) -> None:
        """Have every instance do something."""
        for instance in self.instances:
            instance.tell(order, **about)

    @asynccontextmanager
    async def cut_off(self, instance: Instance) -> AsyncGenerator[None]:
        """Keep an instance's connections cut for a body."""
        await instance.cut()
        await self._reported("cut", instance)
        try:
            yield
        finally:
            await instance.mend()
        await self._reported("mended", instance)

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
            async with asyncio.timeout(self.journal.patience):
                while True:
                    letters = [letter for letter in await box.browse() if letter.id in ids]
                    if {letter.id for letter in letters} == set(ids):
                        return letters
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise BrokenPromise(f"no dead letter within {self.journal.patience:g} s") from None

    async def _reported(self, kind: Kind, instance: Instance) -> None:
        """Wait until `instance` has reported this as often as it was told to."""
        self._told[kind, instance.name] += 1
        wanted = self._told[kind, instance.name]
        await self.journal.until(
            lambda: self.journal.instances(kind).count(instance.name) >= wanted,
            f"{instance.name} is not {kind}",
        )

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
