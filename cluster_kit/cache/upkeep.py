"""Looks after the caches of an instance: links, lost stores, and what is still to be told."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.supervisor import logged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cluster_kit.cache.engine import Engine
    from cluster_kit.clock import Clock
    from cluster_kit.supervisor import Supervisor

LOOK = 0.2
"""Seconds between two looks at the link to other instances, and at what is still to be told."""

LAST_WORDS = 5.0
"""Seconds a stop has for calls under way, and for what all caches are still to tell."""


class Upkeep:
    """Looks at every link in time, whatever the others of a cache are waiting for.

    Args:
        engines: of the caches, by name.
        supervisor: starts what has to wait.
        clock: tells the time.
        changed: called with the name of a cache whose link came or went, and whether it works.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        supervisor: Supervisor,
        clock: Clock,
        changed: Callable[[str, bool], None],
    ) -> None:
        self._engines = engines
        self._supervisor = supervisor
        self._clock = clock
        self._changed = changed
        self._chores: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._closed = False
        supervisor.spawn(self._run(), name="caches")

    async def close(self) -> None:
        """Wait for calls under way, and tell what could not be told before: there is no later."""
        self._closed = True
        chores = set(self._chores.values())
        for task in chores:
            task.cancel()
        if chores:
            await asyncio.wait(chores)
        last = [partial(self._say_the_last, engine) for engine in self._engines.values()]
        await self._supervisor.run_all(last, limit=max(1, len(last)))

    async def _run(self) -> None:
        while not self._closed:
            await self._clock.sleep(LOOK)
            for name, engine in tuple(self._engines.items()):
                self._look(name, engine)

    def _look(self, name: str, engine: Engine) -> None:
        backplane = engine.backplane
        if backplane is not None and backplane.look():
            self._changed(name, backplane.live)
        if backplane is not None and backplane.is_due:
            self._do(name, f"linking cache {engine.name!r}", backplane.keep_up)
        remote = engine.shelf.remote
        if remote is not None and remote.is_missed:
            self._do(name, f"looking for the store of cache {engine.name!r}", remote.look)
        debts = engine.invalidation  # none waits for another, nor for the link
        if debts.owes_store:
            self._do(name, f"telling the store of cache {engine.name!r}", debts.tell_store)
        if debts.owes_others:
            self._do(name, f"telling the others of cache {engine.name!r}", debts.tell_others)

    def _do(self, name: str, step: str, work: Callable[[], Awaitable[None]]) -> None:
        chore = (name, step)
        if chore not in self._chores and not self._closed:
            task = self._chores[chore] = self._supervisor.spawn(_logged(step, work), name=step)
            task.add_done_callback(partial(self._done, chore))

    async def _say_the_last(self, engine: Engine) -> None:
        debts, step = (
            engine.invalidation,
            f"telling the last invalidations of cache {engine.name!r}",
        )
        async with logged(step, limit=LAST_WORDS):
            both = [debts.tell_store_to_the_end, debts.tell_others_to_the_end]
            await self._supervisor.run_all(both, limit=len(both))
            await debts.tell_others()
        debts.give_up()

    def _done(self, chore: tuple[str, str], task: asyncio.Task[None]) -> None:
        del task
        del self._chores[chore]


async def _logged(step: str, work: Callable[[], Awaitable[None]]) -> None:
    async with logged(step):
        await work()
