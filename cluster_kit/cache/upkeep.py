"""Looks after the caches of an instance: their links to others, and what is still to be told."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.supervisor import logged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cluster_kit.cache.engine import Engine
    from cluster_kit.clock import Clock
    from cluster_kit.supervisor import Supervisor

log = logging.getLogger(__name__)

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
        self._chores: dict[str, asyncio.Task[None]] = {}
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
        end = self._clock.monotonic() + LAST_WORDS
        for engine in self._engines.values():
            await self._say_the_last(engine, end)

    async def _say_the_last(self, engine: Engine, end: float) -> None:
        step = f"telling the last invalidations of cache {engine.name!r}"
        async with logged(step, limit=max(0.0, end - self._clock.monotonic())):
            await engine.invalidation.say_the_last()
        engine.invalidation.give_up()

    async def _run(self) -> None:
        while not self._closed:
            await self._clock.sleep(LOOK)
            for name, engine in tuple(self._engines.items()):
                self._look(name, engine)

    def _look(self, name: str, engine: Engine) -> None:
        backplane = engine.backplane
        if backplane is not None and backplane.look():
            self._changed(name, backplane.live)
        is_due = engine.invalidation.behind or (backplane is not None and backplane.is_due)
        if is_due and name not in self._chores and not self._closed:
            task = self._supervisor.spawn(_do_chores(engine), name=f"cache {engine.name}")
            self._chores[name] = task
            task.add_done_callback(partial(self._done, name))

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        del task
        del self._chores[name]


async def _do_chores(engine: Engine) -> None:
    async with logged(f"looking after cache {engine.name!r}"):
        if engine.backplane is not None:
            await engine.backplane.attach()
            await engine.backplane.beat()
        if engine.invalidation.behind:
            await engine.invalidation.catch_up()
