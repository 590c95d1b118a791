"""A server as one adapter sees it: connected, asked within a time, and judged by its answers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from cluster_kit.errors import ClusterKitError
from cluster_kit.loops import OwnLoop
from cluster_kit_aiocache.state import State

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext, Health


class Places(Protocol):
    """What a client has to offer.

    Attributes:
        places: so many calls may be under way at a time.
    """

    places: asyncio.Semaphore

    async def retire(self, since: float) -> None:
        """Use no connection again that was idle all the time since then, by the loop's clock."""
        ...


Client = TypeVar("Client", bound=Places)
T = TypeVar("T")

Unavailable = Callable[[str, str], ClusterKitError]
"""Makes the error of a call that failed, from what it was about and the reason."""

PROBE_SECONDS = 2.0
"""How long a server that is down has to answer a probe."""

PATIENCE = 20
"""A call of a cache waits for its turn so many times as long as for its answer."""

_PARTS = 4  # of the time of a call, each counted once however long the loop took to see its end

_NO_PASSWORD = ("HELLO must be called", "NOAUTH", "Authentication required")  # of Redis


class Server(ABC, Generic[Client]):
    """The server behind one adapter.

    Args:
        url: redacted.
        context: of the instance.
        purpose: what the adapter serves.
        unavailable: see there.

    Attributes:
        errors: what may come out of a call, besides what an answer without sense leads to.
    """

    errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(
        self, url: str, context: AdapterContext, purpose: str, unavailable: Unavailable
    ) -> None:
        self._purpose = purpose
        self._unavailable = unavailable
        self._client: Client | None = None  # while connected
        self._loop: OwnLoop | None = None  # likewise
        self._answered = 0.0  # when it last did
        self._state = State(context, purpose, url, self._ping)

    @property
    def connected(self) -> bool:
        """Whether it may be asked."""
        return self._client is not None

    async def close(self) -> None:
        """Close every connection. Idempotent, legal before it is connected."""
        await self._state.close()
        client, self._client = self._client, None
        if client is not None:
            await self._leave(client)

    def health(self) -> Health:
        """Return how the last call went."""
        return self._state.health()

    async def ask(
        self,
        about: str,
        call: Callable[[Client], Awaitable[T]],
        timeout: float,
        *,
        patience: float | None = None,
    ) -> T:
        """Return the server's answer.

        Args:
            about: what it concerns, for errors.
            call: asks the client.
            timeout: seconds for the answer, from when it is this call's turn.
            patience: seconds to wait for that, as long as others are answered; None for `timeout`.

        Raises:
            ClusterKitError: as `Unavailable` makes it; no answer in time, or an error.
            LifecycleError: not on the event loop that connected it; nothing was asked.
        """
        client = self._client
        if client is None or self._loop is None:
            raise self._unavailable(about, "not connected")
        self._loop.check()
        loop = asyncio.get_running_loop()
        came = loop.time()
        await self._place(client, about, timeout if patience is None else patience)
        began = loop.time()
        try:
            self._check_answers(came, timeout)
            answer = await _in_time(call(client), timeout)
        except ClusterKitError:  # it has answered, that it will not do this
            self._heard()
            raise
        except Exception as exc:
            if isinstance(exc, TimeoutError):  # what swallowed this may swallow all the others
                await client.retire(began)
            raise self._failure(about, exc) from exc
        finally:
            client.places.release()
        self._heard()
        return answer

    async def _place(self, client: Client, about: str, patience: float) -> None:
        if not client.places.locked():
            await client.places.acquire()  # at once
            return
        try:
            await _in_time(client.places.acquire(), patience)
        except TimeoutError as exc:
            raise self._unavailable(about, "too many calls are under way") from exc

    def _check_answers(self, since: float, timeout: float) -> None:
        """Give up if nobody was answered for as long: who has waited need not try it."""
        if asyncio.get_running_loop().time() - max(since, self._answered) >= timeout:
            raise TimeoutError

    def _failure(self, about: str, error: Exception) -> ClusterKitError:
        reason = say(error) if isinstance(error, self.errors) else _nonsense(error)
        self._state.ill(reason)
        return self._unavailable(about, reason)

    def _heard(self) -> None:
        self._answered = asyncio.get_running_loop().time()
        self._state.well()

    def _joined(self, client: Client) -> None:
        """Ask `client` from now on: its server has answered."""
        self._client, self._loop = client, OwnLoop(self._purpose)
        self._state.well()

    @abstractmethod
    async def _leave(self, client: Client) -> None:
        """Give back what was connected."""

    @abstractmethod
    async def _ping(self) -> None:
        """Ask the server something, within `PROBE_SECONDS`."""


async def _in_time(call: Awaitable[T], seconds: float) -> T:
    """Return what `call` does, within so many seconds.

    Time in which this loop stood still is not the server's: its answer may be there unread.

    Raises:
        TimeoutError: they are over.
    """
    loop, limit = asyncio.get_running_loop(), asyncio.timeout(None)
    timer: asyncio.TimerHandle

    def wait(parts: int) -> None:
        nonlocal timer
        if parts:
            timer = loop.call_later(seconds / _PARTS, wait, parts - 1)
        else:
            limit.reschedule(loop.time())

    timer = loop.call_later(seconds / _PARTS, wait, _PARTS - 1)
    async with limit:
        try:
            return await call
        finally:
            timer.cancel()


def _nonsense(error: Exception) -> str:
    """Return what is wrong with an answer that no code here could take."""
    return f"the answer makes no sense: {type(error).__name__}: {error}"


def say(error: BaseException) -> str:
    """Return what went wrong, for people."""
    text = str(error)
    if isinstance(error, TimeoutError) and not text:
        return "no answer in time"
    if text.startswith(_NO_PASSWORD):
        return "the server needs a password, and the URL has none"
    return text or type(error).__name__
