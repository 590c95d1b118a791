"""Starting and stopping, one at a time, each in a task of its own."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

from cluster_kit.errors import LifecycleError
from cluster_kit.loops import OwnLoop
from cluster_kit.supervisor import Supervisor, being_cancelled

log = logging.getLogger(__name__)

ABANDONED = "start() was abandoned: stop() was called"
"""What the caller of a start is told that a stop has ended."""


class Steps(NamedTuple):
    """What is done at each turn of a life.

    Attributes:
        name: of what lives, for people.
        begin: starts everything, or raises with a part of it started.
        begun: told once `begin` has ended well.
        end: undoes whatever was started, in reverse; is given the seconds running work may take
            and returns the ids of what it cut short. Never raises.
        ended: told what `end` of a stop returned.
    """

    name: str
    begin: Callable[[], Awaitable[None]]
    begun: Callable[[], None]
    end: Callable[[float], Awaitable[list[str]]]
    ended: Callable[[list[str]], None]


class _Hook:
    """One call of foreign code by a step of `life`, which is None when that has returned."""

    def __init__(self, life: Lifecycle) -> None:
        self.life: Lifecycle | None = life


_hooks: ContextVar[tuple[_Hook, ...]] = ContextVar("cluster_kit.hooks", default=())
# Those the current task is made in, from the outermost: one may start another cluster.


class Lifecycle:
    """Leads through `Steps`. No caller's task is ever cancelled by another caller.

    Attributes:
        started: whether anything is started, from the first step of a start to the last of a stop.
        ready: whether everything is.
    """

    def __init__(self, steps: Steps) -> None:
        self.started: bool = False
        self.ready: bool = False
        self._steps = steps
        self._tasks = Supervisor()
        self._turn = asyncio.Lock()
        self._changer: asyncio.Task[Any] | None = None
        self._starting: asyncio.Task[Any] | None = None
        self._starter: asyncio.Task[Any] | None = None
        self._stopping: asyncio.Task[list[str]] | None = None
        self._stops = 0
        self._mark = object()
        self._loop: OwnLoop | None = None

    async def start(self) -> None:
        """Start, unless it is started; undo what was done when something fails.

        A caller that is cancelled ends its start, and leaves when that is undone.

        Raises:
            LifecycleError: called from a step or a task of a hook; or a stop was asked for
                meanwhile.
            Exception: that of the step that failed.
        """
        self._refuse_elsewhere()
        self._refuse_in_step("start()")
        task = self._tasks.spawn(self._start(self._stops), name="start")
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await self._revoke(task)
            raise
        if task.cancelled():
            raise asyncio.CancelledError
        if (error := task.result()) is not None:
            raise error

    async def stop(self, timeout: float) -> list[str]:
        """Abandon every start so far, and stop; a second call waits for the first.

        Completes even when the caller is cancelled.

        Raises:
            LifecycleError: called from a step, or while stopping from a task of a hook.
        """
        self._refuse_elsewhere()
        # A start that is abandoned is cancelled, the hook that waits for this included.
        self._refuse_in_step("stop()", abandons=self._starting is not None)
        self.abandon()
        if self._stopping is None:
            self._stopping = self._tasks.spawn(self._stop(timeout), name="stop")
        return await asyncio.shield(self._stopping)

    def _refuse_elsewhere(self) -> None:
        if self.started and self._loop is not None:
            self._loop.check()

    def abandon(self) -> None:
        """End the start that is under way, and those that wait for their turn."""
        self._stops += 1
        if self._starting is not None:
            _cancel_once(self._starting)

    @contextmanager
    def hook(self) -> Generator[None]:
        """Refuse starts and stops from what a step calls in this block, and from its tasks.

        The step waits for the block, which may wait for such a task. One that outlives the block
        is as free as any other, and a task may stop what is just starting: that ends the block.
        """
        hook = _Hook(self)
        _hooks.set((*(outer for outer in _hooks.get() if outer.life is not None), hook))
        try:
            yield
        finally:
            hook.life = None

    # --- in tasks of their own ---

    async def _start(self, stops: int) -> BaseException | None:
        """Return what went wrong: raised here, it would count as heard by nobody."""
        async with self._change():
            if stops != self._stops:
                return LifecycleError(ABANDONED)
            if self.started:
                return None
            self.started, self._starting = True, self._changer
            self._loop = OwnLoop("cluster")
            error = await self._begin()
            self._starting = None  # it is not to be cancelled any more, and undone in peace
            if error is not None:
                _uncancel()
                await self._end(0.0)
                abandoned = isinstance(error, asyncio.CancelledError) and stops != self._stops
                return LifecycleError(ABANDONED) if abandoned else error
            self._starter, self.ready = self._changer, True
            _running[self._mark] = _Running(self._steps.name, os.getpid())
            self._steps.begun()
        return None

    async def _begin(self) -> BaseException | None:
        try:
            await self._steps.begin()
        except BaseException as exc:  # noqa: BLE001 - carried to the caller
            return exc
        return asyncio.CancelledError() if being_cancelled() else None  # a step swallowed it

    async def _stop(self, timeout: float) -> list[str]:
        try:
            async with self._change():
                if not self.started:
                    return []
                unfinished = await self._end(timeout)
                self._steps.ended(unfinished)
                return unfinished
        finally:
            self._stopping = None

    async def _end(self, timeout: float) -> list[str]:
        self.ready = False
        try:
            return await self._steps.end(timeout)
        finally:
            self.started = False
            _running.pop(self._mark, None)

    # --- inside ---

    async def _revoke(self, task: asyncio.Task[BaseException | None]) -> None:
        """Undo a start whose caller is gone, however often that one is cancelled."""
        if task is self._starting or task is not self._changer:
            _cancel_once(task)
        await _outlast(task)
        if self.ready and self._starter is task:  # it was done in the very same moment
            await _outlast(self._tasks.spawn(self._stop(0.0), name="revoke"))

    @asynccontextmanager
    async def _change(self) -> AsyncGenerator[None]:
        """Let one start or stop happen at a time, and know which task it happens in."""
        async with self._turn:
            self._changer = asyncio.current_task()
            try:
                yield
            finally:
                self._changer = None

    def _refuse_in_step(self, what: str, *, abandons: bool = False) -> None:
        own = self._changer is not None and asyncio.current_task() is self._changer
        if own or (not abandons and any(hook.life is self for hook in _hooks.get())):
            raise LifecycleError(f"{what} in a plugin's hook would wait for itself")


def _cancel_once(task: asyncio.Task[Any]) -> None:
    """Cancel `task`, but never what it does because it is cancelled."""
    if not task.cancelling():
        task.cancel()


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.uncancel():
        pass


async def _outlast(task: asyncio.Task[Any]) -> None:
    """Wait for the end of `task`, however often the caller is cancelled meanwhile."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})


class _Running(NamedTuple):
    name: str
    pid: int  # a fork has what its parent started, and need not stop it


_running: dict[object, _Running] = {}  # by mark: a life that is forgotten is not stopped


@atexit.register
def _tell_of_the_unstopped() -> None:
    """Say what no traceback of a closed event loop says: who did not stop what."""
    for running in _running.values():
        if running.pid == os.getpid():
            log.warning(
                "%s was not stopped before its process or event loop ended: running handlers were "
                "cut short; use 'async with cluster' or await cluster.stop()",
                running.name,
            )
