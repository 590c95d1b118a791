"""The one place that starts background tasks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")


class Supervisor:
    """Starts tasks, keeps them referenced, and ends them together.

    An exception that ends a task nobody awaits is logged with the task's name; it is never lost.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._launched: dict[object, asyncio.Task[None]] = {}

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start `work` as a task called `name`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def launch(
        self,
        work: Callable[[U], Coroutine[Any, Any, None]],
        about: U,
        *,
        name: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Start ``work(about)`` as `spawn` does: for what is begun with every message.

        Nobody can wait for it, there is never another `about` the same, and `loop` is the running
        one, so it costs half as much.
        """
        self._launched[about] = loop.create_task(self._run(work, about), name=name)

    async def _run(self, work: Callable[[U], Coroutine[Any, Any, None]], about: U) -> None:
        try:
            await work(about)
        except Exception:
            log.exception("background task %s failed", self._launched[about].get_name())
        finally:
            del self._launched[about]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s failed", task.get_name(), exc_info=error)

    async def run_all(
        self, works: Iterable[Callable[[], Awaitable[T]]], *, limit: int
    ) -> list[T | Exception]:
        """Run all, at most `limit` at a time; return results or exceptions in order.

        When the caller is cancelled, what still runs is cancelled and awaited.
        """
        calls = list(works)
        results: list[T | Exception] = [RuntimeError("not run")] * len(calls)
        numbered = iter(enumerate(calls))

        async def lane() -> None:
            for index, call in numbered:
                try:
                    results[index] = await call()
                except Exception as exc:  # noqa: BLE001 - handed to the caller, in its place
                    results[index] = exc

        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(calls))):
                group.create_task(lane())
        return results

    async def run_in_thread(self, function: Callable[[], T], *, name: str) -> T:
        """Run `function` in a thread of its own and return its result.

        Nothing can stop a thread, so a first cancellation is only noted: this call waits on, and
        what the function returns or raises counts. A second cancellation gives the thread up.
        Whoever is to end by a cancellation uses `start_thread` and `outlast`.
        """
        thread = self.start_thread(function, name=name)
        with suppress(asyncio.CancelledError):
            await asyncio.wait({thread})
        await asyncio.wait({thread})
        return thread.result()

    def start_thread(self, function: Callable[[], T], *, name: str) -> asyncio.Future[T]:
        """Run `function` in a thread of its own and return what tells of its end.

        The thread is a daemon: one that never ends must not keep the process from exiting.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def report(outcome: Callable[[], None]) -> None:
            if not done.done():
                outcome()

        def body() -> None:
            try:
                outcome = partial(done.set_result, context.run(function))
            except StopIteration as exc:  # no future can hold one
                error = RuntimeError(f"{name} raised {exc!r}").with_traceback(exc.__traceback__)
                error.__cause__ = exc
                outcome = partial(done.set_exception, error)
            except BaseException as exc:  # noqa: BLE001 - carried to the caller
                outcome = partial(done.set_exception, exc)
            try:
                loop.call_soon_threadsafe(report, outcome)
            except RuntimeError:
                log.warning("thread %s ended after its event loop", name)

        threading.Thread(target=body, name=name, daemon=True).start()
        return done

    async def close(self, timeout: float = 1.0) -> list[str]:
        """Cancel everything, wait at most `timeout` seconds, return the names of what remains."""
        tasks = {*self._tasks, *self._launched.values()} - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if not tasks:
            return []
        done, pending = await asyncio.wait(tasks, timeout=timeout)
        # Among them those that never began.
        self._tasks -= done
        self._launched = {key: task for key, task in self._launched.items() if task not in done}
        return sorted(task.get_name() for task in pending)


async def outlast(thread: asyncio.Future[T]) -> T:
    """Return the result of a thread, which nothing can stop.

    A cancellation meanwhile is raised once the thread has ended, unless that failed; a second one
    is raised at once, and gives the thread up.
    """
    try:
        await asyncio.wait({thread})
    except asyncio.CancelledError:
        await asyncio.wait({thread})
        thread.result()
        raise
    return thread.result()


@asynccontextmanager
async def logged(step: str, *, limit: float | None = None) -> AsyncGenerator[None, None]:
    """Log what goes wrong in a step of stopping, so that the next steps follow.

    Args:
        step: what it is, for the log.
        limit: seconds after which it is cancelled.
    """
    try:
        async with asyncio.timeout(limit):
            yield
    except Exception:
        log.exception("%s failed", step)
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        log.exception("%s failed", step)


def being_cancelled() -> bool:
    """Whether it is the current task that is cancelled, not something it was waiting for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
