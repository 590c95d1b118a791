"""What a user gives to have values loaded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from cluster_kit.cache.options import check_ttl
from cluster_kit.cache.values import Loaded
from cluster_kit.errors import ConfigurationError
from cluster_kit.signature import is_async
from cluster_kit.supervisor import outlast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from cluster_kit.clock import Duration
    from cluster_kit.supervisor import Supervisor

T = TypeVar("T")

MOST_THREADS = 100
"""Threads in which sync loaders of an instance run at once that anybody waits for, but for those
that one of them waits for."""

_in_thread: ContextVar[bool] = ContextVar("cluster_kit_cache_in_thread", default=False)


class Request(NamedTuple):
    """What a caller wants loaded.

    Attributes:
        load: gives the value.
        ttl: of the value; None leaves it to the cache.
        tags: that will invalidate it.
        condition: whether a value is to be kept; None keeps all.
        renew: load it although there is one.
    """

    load: Callable[[], object]
    ttl: float | None = None
    tags: Sequence[str] = ()
    condition: Callable[[object], object] | None = None
    renew: bool = False


def loaded(value: T, *, ttl: Duration | None = None, keep: bool = True) -> T:
    """Return `value` from a loader, and say more about it. To callers it is the value alone.

    Args:
        value: that was loaded.
        ttl: how long it counts, seconds; None leaves it to the call and the cache.
        keep: False returns the value to the callers and keeps it nowhere.

    Raises:
        ConfigurationError: the ttl is wrong.
    """
    life = check_ttl("ttl", ttl)
    if isinstance(value, Loaded):  # of a loader that this one has called
        life, keep, inner = value.ttl if life is None else life, keep and value.keep, value.value
        return cast("T", Loaded(inner, life, keep=keep))
    return cast("T", Loaded(value, life, keep=keep))


def check_callable(name: str, value: object) -> None:
    """Refuse what cannot be called.

    Raises:
        ConfigurationError: it cannot; the text names it.
    """
    if not callable(value):
        raise ConfigurationError(f"{name} must be a function, not {type(value).__name__}")


async def call_at_once(fn: Callable[..., object], supervisor: Supervisor, name: str) -> object:
    """Call a user's function for one who waits for it himself, and whose cancellation counts."""
    if is_async(fn):
        result = await cast("Awaitable[object]", fn())
    else:
        result = await outlast(supervisor.start_thread(fn, name=name))
        result = await result if inspect.isawaitable(result) else result
    return result.value if isinstance(result, Loaded) else result


class Turn:
    """Whether a load has to wait for a place to run in a thread.

    Attributes:
        urgent: it has not, for one who has a place himself waits for it.
    """

    def __init__(self, *, urgent: bool) -> None:
        self.urgent = urgent
        self._limit: asyncio.Timeout | None = None

    def hurry(self) -> None:
        """Let it wait no more."""
        self.urgent = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def take(self, places: asyncio.Semaphore) -> bool:
        """Wait for a place; return whether there is one to be given back."""
        if self.urgent:
            return False
        try:
            async with asyncio.timeout(None) as self._limit:
                return await places.acquire()
        except TimeoutError:
            return False
        finally:
            self._limit = None


def in_thread() -> bool:
    """Whether this runs in the thread of a loader, or on its behalf."""
    return _in_thread.get()


class Runner:
    """Calls the functions of users that loads need: async ones here, any other in a thread.

    Args:
        supervisor: starts the threads.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._places = asyncio.Semaphore(MOST_THREADS)

    async def call(self, fn: Callable[..., object], name: str, turn: Turn, *args: object) -> object:
        """Call a function; in a thread when it is its turn.

        Nothing can stop a thread: a load that is given up leaves it to itself, and what it returns
        is lost. Its place is free then.
        """
        if is_async(fn):
            return await cast("Awaitable[object]", fn(*args))
        has_place = await turn.take(self._places)
        try:
            thread = self._supervisor.start_thread(partial(_call_inside, fn, *args), name=name)
            thread.add_done_callback(_retrieve)
            await asyncio.wait({thread})
        finally:
            if has_place:
                self._places.release()
        result = thread.result()
        return await result if inspect.isawaitable(result) else result


def _call_inside(fn: Callable[..., object], *args: object) -> object:
    _in_thread.set(True)  # in the thread, and in what it starts
    return fn(*args)


def _retrieve(thread: asyncio.Future[object]) -> None:
    """Whoever waits has the error; of one that was left to itself the end is told already."""
    if not thread.cancelled():
        thread.exception()
