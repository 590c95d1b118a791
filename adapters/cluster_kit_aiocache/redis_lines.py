"""The quickest way to ask Redis one thing: connections of the driver's pool, kept while in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004 - the driver's name
    MasterDownError,
    ReadOnlyError,
    ResponseError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Word = str | int | bytes | Callable[[], bytes]
"""Of a command; one that is called is another one each time it is tried."""

MOST_CALLS = 50
"""At a time by one adapter, each on a connection of its own."""

_SOON = 0.0002  # seconds in which a server nearby answers
_FORGETS = 8  # so many answers lately say how long they take


class _Awake:
    """Keeps a loop from going to sleep for an answer that is about to come.

    To be woken takes about as long as such an answer, and costs no less than to stay awake, in
    which all else goes on. Where answers take longer than `_SOON` lately, as they do from afar and
    where there is much to do, the loop may sleep.
    """

    def __init__(self) -> None:
        self._takes = 0.0  # seconds, of an answer lately
        self._awaited = 0  # answers
        self._until = 0.0
        self._turns = False  # whether it goes round

    @contextmanager
    def for_an_answer(self) -> Generator[None]:
        """While it is awaited. One that does not come tells nothing of how long others take."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._awaited += 1
        if self._takes < _SOON:
            self._until = began + _SOON
            if not self._turns:
                self._turns = True
                loop.call_soon(self._turn, loop)
        try:
            yield
            self._takes += (loop.time() - began - self._takes) / _FORGETS
        finally:
            self._awaited -= 1

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns = self._awaited > 0 and loop.time() < self._until
        if self._turns:
            loop.call_soon(self._turn, loop)


class Lines:
    """Runs single commands as the driver's client does, at half the cost.

    The driver looks at a connection before each command, to find out whether it is still there;
    here a command that finds it gone has one more try on another, and so has one that was refused
    for the server is no primary any more: behind its address there may be another. A connection
    whose command did not end in order is closed. One that the server refuses from the beginning,
    as it takes no more or the password is another now, says nothing about those that work.

    Args:
        pool: of the driver's client.

    Attributes:
        places: see `MOST_CALLS`; who asks takes one.
    """

    def __init__(self, pool: Any) -> None:  # noqa: ANN401 - the driver's
        self._pool = pool
        self._idle: list[Any] = []
        self.places: asyncio.Semaphore = asyncio.Semaphore(MOST_CALLS)
        self._closed = False
        self._awake = _Awake()

    async def execute_command(self, *words: Word) -> Any:  # noqa: ANN401 - the server's answer
        """Run a command. Raises what the driver's client does."""
        return (await self.execute_commands(words))[0]

    async def execute_commands(
        self,
        *commands: Sequence[Word],
        repeat: bool = True,
        on_repeat: Callable[[], object] | None = None,
    ) -> list[Any]:
        """Run commands one after the other, in one round trip, and return their answers.

        They are no transaction: others may come in between, and where one is refused those after
        it are still run. Then the first refusal is raised. Without `repeat` a lost connection is
        an error; else `on_repeat` is called where one was lost, as what it carried may come yet.
        """
        worked = repeat and bool(self._idle)  # the connection that these are about to get
        try:
            return await self._ask(commands)
        except (ConnectionError, ResponseError) as exc:
            if not (_is_no_primary(exc) or (worked and isinstance(exc, ConnectionError))):
                raise
            await self._drop_idle()  # what was gone with it has to go, too
            await self._pool.disconnect(inuse_connections=False)
            if on_repeat is not None and isinstance(exc, ConnectionError):
                on_repeat()
            return await self._ask(commands)

    async def close(self) -> None:
        """Close all connections; those in use follow when they are not."""
        self._closed = True
        await self._drop_idle()

    async def _ask(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        connection = self._idle.pop() if self._idle else await self._pool.get_connection()
        answers: list[Any] = []
        try:
            packed = b"".join(map(_packed, commands))
            await connection.send_packed_command(packed, check_health=False)
            with self._awake.for_an_answer():
                for _ in commands:
                    answers.append(await _answer(connection))  # noqa: PERF401 - the rest may break off
        except BaseException as exc:
            await self._drop(connection)
            if isinstance(exc, ConnectionError) and (refusal := _refusal(answers)) is not None:
                raise refusal from exc  # as of a value that is too large: then the server hangs up
            raise
        refusal = _refusal(answers)
        if self._closed or (refusal is not None and _is_no_primary(refusal)):
            await self._drop(connection)
        else:
            self._idle.append(connection)
        if refusal is not None:
            raise refusal
        return answers

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._drop(self._idle.pop())

    async def _drop(self, connection: Any) -> None:  # noqa: ANN401 - the driver's
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)


def _refusal(answers: Sequence[Any]) -> ResponseError | None:
    return next((answer for answer in answers if isinstance(answer, ResponseError)), None)


async def _answer(connection: Any) -> Any:  # noqa: ANN401 - the driver's
    """Return an answer, also if it is an error."""
    try:
        return await connection.read_response()
    except ResponseError as exc:
        return exc


def _is_no_primary(error: Exception) -> bool:
    """Whether a command was not carried out because no primary is at the other end."""
    return isinstance(error, ReadOnlyError | MasterDownError) or (
        "-READONLY" in str(error)  # as Redis before 7 tells it of a script
    )


def is_refusal(error: Exception) -> bool:
    """Whether the server answered that it will not do this: it is full, or we have no right to."""
    return isinstance(error, ResponseError) and not _is_no_primary(error)


def _packed(words: Sequence[Word]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        told = word() if callable(word) else word
        body = told if isinstance(told, bytes) else str(told).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(body), body))
    return b"".join(parts)
