"""Calls into aiormq that run to their end, and end when their link does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from cluster_kit_amqp.link import ChannelDown, LinkDown
from cluster_kit_amqp.questions.errors import Translated
from cluster_kit_amqp.questions.stream import Observed

if TYPE_CHECKING:
    from cluster_kit.ports import TaskSpawner

T = TypeVar("T")

CALL_TIMEOUT = 10.0  # seconds for an answer; a link that gives none is given up
_GRACE = 0.5  # seconds; the driver ends most calls itself, and knows best how they ended


class Closing(Protocol):
    """The part of the driver's connections and channels that it leaves without a type."""

    @property
    def closing(self) -> asyncio.Future[object]:
        """Done when it has ended."""
        ...


class Outcome(Generic[T]):
    """What came of a call: a result or an error, once it has ended."""

    def __init__(self) -> None:
        self.result: T | None = None
        self.error: BaseException | None = None

    async def of(self, call: Awaitable[T]) -> None:
        """Wait for `call` and keep what comes of it."""
        try:
            self.result = await call
        except BaseException as exc:  # noqa: BLE001 - handed to the caller, if there still is one
            self.error = exc

    def get(self) -> T:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("T", self.result)  # None may be one


class Calls:
    """The calls under way on one link.

    Each runs in a task of its own, to its end: where a call is cancelled the driver closes the
    channel without waiting for the broker's answer, uses its number again, and the late answer
    ends the whole connection. Some calls wait on a queue that nobody empties once the connection
    is gone, so every call also runs in a scope that the loss of the link closes.
    """

    def __init__(self, observed: Observed, tasks: TaskSpawner) -> None:
        self._observed, self._tasks = observed, tasks
        self._scopes: set[asyncio.Timeout] = set()

    @property
    def lost(self) -> str | None:
        """Why the link is gone; None while it is up."""
        return self._observed.lost

    def end_all(self) -> None:
        """The link is lost: let no call outlive it by more than the grace time."""
        deadline = asyncio.get_running_loop().time() + _GRACE
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(min(deadline, scope.when() or deadline))

    async def run(self, call: Awaitable[T], *, timeout: float = CALL_TIMEOUT) -> T:
        """Run a call of the driver, to its end even where the caller is cancelled.

        Raises:
            LinkError: whatever the driver raised, in the words of the seam; also when no answer
                came within `timeout` seconds, which ends the link.
        """
        outcome: Outcome[T] = Outcome()
        await asyncio.shield(self.start(call, outcome, timeout=timeout))
        return outcome.get()

    def start(
        self, call: Awaitable[T], outcome: Outcome[T], *, timeout: float = CALL_TIMEOUT
    ) -> asyncio.Task[None]:
        """Start a call of the driver; `outcome` has what comes of it."""
        work = outcome.of(self._scoped(call, timeout))
        return self._tasks.spawn(work, name="amqp control call")

    async def _scoped(self, call: Awaitable[T], timeout: float) -> T:
        # One that begins on a lost link is left to the driver, which knows best what to say.
        scope = asyncio.timeout(timeout if self.lost is None else _GRACE)
        try:
            with Translated():
                async with scope:
                    self._scopes.add(scope)
                    return await call
        except TimeoutError:
            if not scope.expired():
                raise
            self._observed.end(f"the broker did not answer in {timeout:g} s")
            self._observed.require(sent=True)
            raise
        except (LinkDown, ChannelDown) as exc:
            if not getattr(exc, "code", 0):
                self._observed.require(sent=exc.sent)
            raise
        finally:
            self._scopes.discard(scope)
