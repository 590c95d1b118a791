"""Keeps whole what a delayed or returned task passes on its way, whoever damages it.

Such a task is published to where it waits; what it passes afterwards tells nobody when it is gone:
the task is kept by the broker and comes no more. So all of it is declared again from time to time,
which changes nothing where it is there. What waited before a part that was missing goes on when
the broker tries again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.errors import TopologyError
from cluster_kit.loops import set_within
from cluster_kit_amqp.backoff import Backoff
from cluster_kit_amqp.link import ChannelDown, Link, LinkError
from cluster_kit_amqp.tasks.delays import Section, chain
from cluster_kit_amqp.topology import Exchange, Queue, Steps, work_steps

if TYPE_CHECKING:
    from cluster_kit.names import QueueName
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.connection.supervised import Connection
    from cluster_kit_amqp.control.declare import Declarer
    from cluster_kit_amqp.health import Problems
    from cluster_kit_amqp.tasks.delays import Wait

log = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between looks, as long as there is no cause for doubt; a quarter more or less."""

SOON = 5.0
"""Seconds within which a look follows a doubt. Many instances have the same doubt at once."""

_FEWEST_FAILURES = 2  # looks in a row without an answer before health tells
_ASKING = "answers"


class _Part(NamedTuple):
    """Steps known together as `name`; with `where` only looked after where that is there."""

    name: str
    steps: Steps
    where: Exchange | Queue | None = None


class Upkeep:
    """Looks after the ways of delayed and returned tasks, for the instances that use them.

    Args:
        connection: nothing is looked at while it is away, and all soon after it came.
        declarer: makes, or only checks, as it may.
        context: of the port.
        problems: where it is told what cannot be mended.
    """

    def __init__(
        self,
        connection: Connection,
        declarer: Declarer,
        context: AdapterContext,
        problems: Problems,
    ) -> None:
        self._connection, self._declarer = connection, declarer
        self._context, self._problems = context, problems
        self._queues: dict[str, QueueName] = {}
        self._consumed: set[str] = set()
        self._waits: dict[str, Section] = {}
        self._seen: Link | None = None
        self._doubted = asyncio.Event()
        self._failures = 0
        self._reported: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._open = False
        connection.on_change(self._link_changed)

    def open(self) -> None:
        """Look after what is used from now on, where that is wished."""
        self._open = self._declarer.looks

    def use(self, queue: QueueName, wait: Wait | None = None) -> None:
        """Look after a queue that is consumed, or whose tasks wait where `wait` says."""
        if not self._open:
            return
        unseen = not self._queues
        self._queues[queue.full] = queue
        if wait is None:
            self._consumed.add(queue.full)
        else:
            new = [section for section in wait.needs if section.name not in self._waits]
            self._waits.update((section.name, section) for section in new)
            unseen = unseen or any(section.last is not None for section in new)
        if unseen:
            self.doubt()
        if self._task is None:
            self._task = self._context.tasks.spawn(self._run(), name="amqp upkeep")

    def doubt(self) -> None:
        """Something was missing: other things may be too."""
        self._doubted.set()

    async def close(self) -> None:
        """Look no more until `open`. Idempotent."""
        self._open = False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._queues.clear()
        self._consumed.clear()
        self._waits.clear()
        for name in tuple(self._reported):
            self._well(name)

    def _link_changed(self) -> None:
        """The last link may have gone with its broker, and some of the topology with that."""
        link = self._connection.link
        if link is not None and link is not self._seen:
            self._seen = link
            self.doubt()

    # --- the task ----------------------------------------------------------------------------

    async def _run(self) -> None:
        trouble = Backoff(self._context, INTERVAL)
        pause = INTERVAL
        while True:
            if await set_within(self._doubted, pause):
                await self._context.clock.sleep(SOON * self._context.random.uniform(0.1, 1.0))
            await self._connection.ready()
            self._doubted.clear()
            if await self._look():
                trouble.reset()
                pause = INTERVAL * self._context.random.uniform(0.75, 1.25)
            else:
                pause = trouble.next()

    async def _look(self) -> bool:
        """Make or check all there is; return whether all is well."""
        try:
            found = [await self._whole(part) for part in self._parts()]
        except LinkError as exc:
            self._failures += 1
            if self._failures >= _FEWEST_FAILURES:
                self._report(_ASKING, exc)
            return False
        except Exception:
            log.exception("cannot look after delayed tasks, trying again")
            return False
        self._failures = 0
        self._well(_ASKING)
        return all(found)

    def _parts(self) -> list[_Part]:
        whole = chain(self._context.app)
        made = [
            _Part(name=each.name, steps=each.steps, where=each.last)
            for each in whole
            if each.name not in self._waits
        ]
        used = [_Part(each.name, each.steps) for each in self._waits.values()]
        limit = self._context.crash_limit
        queues = [
            _Part(name, work_steps(queue, limit), Queue(name, {}))
            for name, queue in self._queues.items()
        ]
        return [*used, *made, *queues]

    async def _whole(self, part: _Part) -> bool:
        """Make or check one part; return whether it is whole, or not wanted any more."""
        try:
            there = await self._declarer.renew(part.name, part.steps, part.where)
        except (TopologyError, ChannelDown) as exc:
            self._report(part.name, exc)
            return False
        if not there and part.name not in self._consumed:
            # Deleted, most likely for good; the next task for it makes it again.
            self._queues.pop(part.name, None)
        self._well(part.name)
        return True

    def _report(self, name: str, error: Exception) -> None:
        detail = f"delayed or returned tasks may be kept waiting: {error}"
        if name not in self._reported:
            self._reported.add(name)
            log.warning("%s", detail)
        self._problems.report(f"upkeep {name}", "degraded", detail)

    def _well(self, name: str) -> None:
        if name in self._reported:
            self._reported.discard(name)
            self._problems.clear(f"upkeep {name}")
