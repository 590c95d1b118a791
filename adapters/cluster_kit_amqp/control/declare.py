"""Makes and checks the topology, always on a connection of its own.

A refused declaration ends its channel, sometimes its connection; where tasks pass it would do harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cluster_kit.errors import TopologyError
from cluster_kit_amqp.attempt import Attempt
from cluster_kit_amqp.control.by_name import LocksByName
from cluster_kit_amqp.control.conflicts import conflict, subject
from cluster_kit_amqp.control.on_demand import Control
from cluster_kit_amqp.control.seam import (
    ACCESS_REFUSED,
    LOCKED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    MakingLink,
)
from cluster_kit_amqp.link import ChannelDown, Link, LinkDown
from cluster_kit_amqp.topology import (
    Exchange,
    Queue,
    Step,
    Steps,
    check_queue_name,
    work_steps,
)

if TYPE_CHECKING:
    from cluster_kit.names import QueueName
    from cluster_kit.ports import TaskSpawner
    from cluster_kit_amqp.options import DeclareMode

log = logging.getLogger(__name__)

Announce = Callable[["QueueName"], Awaitable[None]]
"""Called before a work queue is made for the first time."""

_TYPE = "x-queue-type"
_ANSWER_TIMEOUT = 10.0  # seconds for each answer; a link that gives none is given up


class Declarer:
    """Makes sure of the topology for one connection, once for each of its links.

    A link that was lost may have gone with its broker, and the topology with that.

    Args:
        own: the connection on which things are made.
        mode: whether they may be made.
        crash_limit: of the queues.
        announce: called before a work queue is made for the first time.
        tasks: starts what makes them.
        turns: by name, shared by all declarers of an instance. A quorum queue that is declared
            twice at the same time may be broken from then on: RabbitMQ 3.10 makes half of it,
            which takes nothing, and answers 541 to whoever asks for it.
    """

    def __init__(
        self,
        own: Control[MakingLink],
        mode: DeclareMode,
        crash_limit: int,
        announce: Announce | None,
        tasks: TaskSpawner,
        turns: LocksByName | None = None,
    ) -> None:
        self._turns = LocksByName() if turns is None else turns
        self._own, self._mode, self._tasks = own, mode, tasks
        self._crash_limit, self._announce = crash_limit, announce
        self._making: dict[str, Attempt] = {}
        self._announced: set[str] = set()
        self._link: Link | None = None
        self._done: set[str] = set()
        self._doubted: set[str] = set()
        self._locks = LocksByName()

    @property
    def makes(self) -> bool:
        """Whether what is missing is made."""
        return self._mode == "auto"

    @property
    def looks(self) -> bool:
        """Whether what is there is looked at."""
        return self._mode != "none"

    async def ensure_queue(self, link: Link, queue: QueueName) -> None:
        """Make or check a channel's queues and what leads to them.

        Raises:
            TopologyError: something is missing, or is there with other arguments.
            LinkError: the link or a channel failed meanwhile.
        """
        if self.is_settled(link, queue.full):
            return
        check_queue_name(queue)
        await self._once(link, queue.full, lambda: self._make_queue(queue))

    async def _make_queue(self, queue: QueueName) -> None:
        steps, work = work_steps(queue, self._crash_limit), Queue(queue.full, {})
        async with self._own.link() as own:
            if not await self._settle(own, steps, where=work):
                await self._announce_once(queue)
                await self._settle(own, steps)

    async def _announce_once(self, queue: QueueName) -> None:
        """Put the queue on the list, but not again where making it fails again and again."""
        if self._announce is not None and queue.full not in self._announced:
            await self._announce(queue)
            self._announced.add(queue.full)

    async def ensure(
        self, link: Link, name: str, steps: Steps, last: Exchange | None = None
    ) -> None:
        """Make or check `steps`, known together as `name`. Raises as `ensure_queue`.

        Where `last` is there, all are taken to be, until `forget` was called for them.
        """
        if not self.is_settled(link, name):
            await self._once(link, name, lambda: self._make(name, steps, last))

    async def _make(self, name: str, steps: Steps, last: Exchange | None) -> None:
        trusted = last is not None and name not in self._doubted and self._mode == "auto"
        async with self._own.link() as own:
            if last is None or not trusted or not await exists(own, last):
                await self._settle(own, steps)

    async def renew(self, name: str, steps: Steps, where: Exchange | Queue | None = None) -> bool:
        """Make or check `steps`, whatever was found before. Raises as `ensure_queue`.

        Where `where` is given and not there, nothing is made or checked, and False is returned.
        """
        async with self._turns.of(name), self._own.link() as own:
            if where is not None and self._mode == "passive" and not await exists(own, where):
                return False
            return await self._settle(own, steps, where)

    async def _once(self, link: Link, name: str, make: Callable[[], Awaitable[None]]) -> None:
        """Let one caller make what others wait for.

        It is made to its end even where the caller gives up: over a slow line the many steps of
        the chain may take longer than a publish has, and the next must not begin anew.
        """
        async with self._locks.of(name):
            if self.is_settled(link, name):
                return
            making = self._making.get(name)
            if making is None or making.task.done():
                making = self._making[name] = Attempt(
                    self._tasks, f"amqp topology {name}", self._made(link, name, make)
                )
            await asyncio.shield(making.task)
            self._making.pop(name, None)
            if making.error is not None:
                raise making.error

    async def _made(self, link: Link, name: str, make: Callable[[], Awaitable[None]]) -> None:
        async with self._turns.of(name):
            await make()
        self._mark(link, name)

    def is_settled(self, link: Link, name: str) -> bool:
        """Whether nothing is left to be made or checked of what is known as `name`."""
        return self._mode == "none" or (link is self._link and name in self._done)

    def forget(self, *names: str) -> None:
        """What these names stand for may be gone: look again at the next need."""
        self._done.difference_update(names)
        self._doubted.update(names)

    def _mark(self, link: Link, name: str) -> None:
        if link is not self._link:
            self._link = link
            self._done.clear()
        self._done.add(name)
        self._doubted.discard(name)

    async def _settle(
        self, link: MakingLink, steps: Steps, where: Exchange | Queue | None = None
    ) -> bool:
        """As `declare`, or only check, where that is all that is wished or allowed."""
        if self._mode == "passive":
            await check(link, steps)
            return True
        try:
            return await declare(link, steps, where)
        except ChannelDown as exc:
            if exc.code != ACCESS_REFUSED:
                raise
            # A user that may not configure can still work with what others have made.
            log.debug("not allowed to declare, checking instead: %s", exc.reason)
            await check(link, steps)
            return True


async def declare(link: MakingLink, steps: Steps, where: Exchange | Queue | None = None) -> bool:
    """Make `steps` in their order. All are sent together: the line is waited for once.

    Args:
        link: to make them on.
        steps: what to make.
        where: an exchange or queue; where it is missing nothing is made, and False is returned.

    Raises:
        TopologyError: something of that name is there with other arguments, or locked.
        LinkError: anything else, access refused among it.
    """
    async with _answering(link) as scope, link.channel() as channel:
        found = None if where is None else channel.make(where, passive=True)
        answers = [(step, channel.make(step)) for step in steps]
        if found is not None and not await _is_there(found):
            return False
        for step, answer in answers:
            try:
                await answer
            except ChannelDown as exc:
                if exc.code in {PRECONDITION_FAILED, LOCKED}:
                    raise conflict(step, await _plainer(link, step, exc.reason)) from exc
                raise
            scope.reschedule(asyncio.get_running_loop().time() + _ANSWER_TIMEOUT)
    return True


@asynccontextmanager
async def _answering(link: MakingLink) -> AsyncGenerator[asyncio.Timeout, None]:
    """Give up a link that is given no answer in time."""
    scope = asyncio.timeout(_ANSWER_TIMEOUT)
    try:
        async with scope:
            yield scope
    except TimeoutError:
        if not scope.expired():
            raise
        await link.close()
        raise LinkDown(f"the broker did not answer in {_ANSWER_TIMEOUT:g} s") from None


async def _is_there(answer: Awaitable[object]) -> bool:
    try:
        await answer
    except ChannelDown as exc:
        if exc.code != NOT_FOUND:
            raise
        return False
    return True


async def _plainer(link: MakingLink, step: Step, text: str) -> str:
    """Return what the broker says of a queue's type, where that differs, else `text`.

    The broker names one difference of several; where the type is another, that is the point.
    """
    if isinstance(step, Queue) and _TYPE not in text:
        try:
            async with link.channel() as channel:
                await channel.make(Queue(step.name, {_TYPE: step.arguments[_TYPE]}))
        except ChannelDown as exc:
            if _TYPE in exc.reason:
                return exc.reason
    return text


async def check(link: MakingLink, steps: Steps) -> None:
    """See whether the exchanges and queues of `steps` are there.

    Raises:
        TopologyError: one is missing, or this user may not even look.
    """
    for step in steps:
        if isinstance(step, Exchange | Queue) and not await exists(link, step):
            raise TopologyError(subject(step), "missing on the broker")


async def exists(link: MakingLink, step: Exchange | Queue) -> bool:
    """Whether an exchange or queue is there.

    Raises:
        TopologyError: this user may not even look.
        LinkError: anything else.
    """
    async with _answering(link), link.channel() as channel:
        try:
            return await _is_there(channel.make(step, passive=True))
        except ChannelDown as exc:
            if exc.code in {ACCESS_REFUSED, LOCKED}:
                raise TopologyError(subject(step), exc.reason) from exc
            raise
