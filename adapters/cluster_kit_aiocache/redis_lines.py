"""The quickest way to ask Redis one thing: connections of the driver's pool, kept while in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import Connection
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - the driver's name
    MasterDownError,
    ReadOnlyError,
    ResponseError,
)

from cluster_kit_aiocache.awake import Awake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_kit.ports import TaskSpawner

Word = str | int | bytes | Callable[[], bytes]
"""Of a command; one that is called is another one each time it is tried."""

_CONNECT_SECONDS = 5.0

_LOOK = "can_read" if hasattr(Connection, "can_read") else "can_read_destructive"  # before 8.0

MOST_CALLS = 50
"""At a time by one adapter, each on a connection of its own."""


class Lines:
    """Runs single commands as the driver's client does, at half the cost.

    The driver looks at a connection before each command, to find out whether it is still there;
    here a command that finds it gone has one more try on another, and so has one that was refused
    for the server is no primary any more: behind its address there may be another. A connection
    whose command did not end in order is closed. So is one in which something stands that nobody
    has asked for: it would be taken for the answer to the next command, and that for the next. A
    connection that the server refuses from the beginning, as it takes no more or the password is
    another now, says nothing about those that work. One that takes longer to be made than its
    caller has time is there for the next.

    Args:
        pool: of the driver's client.
        tasks: starts the making of connections.

    Attributes:
        places: see `MOST_CALLS`; who asks takes one.
    """

    def __init__(self, pool: Any, tasks: TaskSpawner) -> None:  # noqa: ANN401 - the driver's
        self._pool = pool
        self._tasks = tasks
        self._idle: dict[Any, float] = {}  # with the time of its last answer, the last one last
        self._coming: set[asyncio.Future[Any]] = set()  # connections nobody waits for
        self.places: asyncio.Semaphore = asyncio.Semaphore(MOST_CALLS)
        self._closed = False
        self._awake = Awake()

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
        worked = bool(self._idle)  # the connection that these are about to get
        try:
            return await self._ask(commands)
        except (ConnectionError, ResponseError) as exc:
            gone = worked and isinstance(exc, ConnectionError)
            if not (gone or _is_no_primary(exc)):
                raise
            await self._drop_idle()  # what was gone with it has to go, too
            await self._pool.disconnect(inuse_connections=False)
            if gone and not repeat:
                raise
            if on_repeat is not None and isinstance(exc, ConnectionError):
                on_repeat()
            return await self._ask(commands)

    async def retire(self, since: float) -> None:
        """Use no connection again that was idle all the time since: one was silent all the time."""
        await self._drop_idle(since)

    async def close(self) -> None:
        """Close all connections; those in use follow when they are not."""
        self._closed = True
        for coming in tuple(self._coming):
            coming.cancel()
        await self._drop_idle()

    async def _connection(self) -> Any:  # noqa: ANN401 - the driver's
        while self._idle:
            connection, _ = self._idle.popitem()
            if not await _has_more(connection):
                return connection
            await self._drop(connection)
        if self._coming:
            coming = self._coming.pop()
            coming.remove_done_callback(self._has_come)
        else:
            coming = asyncio.get_running_loop().create_future()
            self._tasks.spawn(self._connect(coming), name="connect to Redis")
        try:
            return await asyncio.shield(coming)
        except asyncio.CancelledError:
            self._coming.add(coming)
            coming.add_done_callback(self._has_come)
            raise

    async def _connect(self, coming: asyncio.Future[Any]) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await self._pool.get_connection()
        except BaseException as exc:
            ended = exc if isinstance(exc, Exception) else ConnectionError("ended by a stop")
            if not coming.done():
                coming.set_exception(ended)
            if isinstance(exc, Exception):
                return
            raise
        if self._closed or coming.done():
            await self._drop(connection)
        else:
            coming.set_result(connection)

    def _has_come(self, coming: asyncio.Future[Any]) -> None:
        self._coming.discard(coming)
        if not coming.cancelled() and coming.exception() is None:
            self._keep(coming.result())

    async def _ask(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        connection = await self._connection()
        answers: list[Any] = []
        try:
            packed = b"".join(map(_packed, commands))
            await connection.send_packed_command(packed, check_health=False)
            with self._awake.for_an_answer():
                for _ in commands:
                    answers.append(await _answer(connection))  # noqa: PERF401 - the rest may break off
            await _check_step(connection)
        except BaseException as exc:
            await self._drop(connection)
            if isinstance(exc, ConnectionError) and (refusal := _refusal(answers)) is not None:
                raise refusal from exc  # as of a value that is too large: then the server hangs up
            raise
        refusal = _refusal(answers)
        if self._closed or (refusal is not None and _is_no_primary(refusal)):
            await self._drop(connection)
        else:
            self._keep(connection)
        if refusal is not None:
            raise refusal
        return answers

    def _keep(self, connection: Any) -> None:  # noqa: ANN401 - the driver's
        self._idle[connection] = asyncio.get_running_loop().time()

    async def _drop_idle(self, since: float = inf) -> None:
        for connection, answered in tuple(self._idle.items()):
            if answered <= since and self._idle.pop(connection, None) is not None:
                await self._drop(connection)

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


async def _has_more(connection: Any) -> bool:  # noqa: ANN401 - the driver's
    """Whether something stands there unread, or the server has closed it."""
    try:
        return bool(await getattr(connection, _LOOK)())
    except ConnectionError:
        return True


async def _check_step(connection: Any) -> None:  # noqa: ANN401 - the driver's
    if await _has_more(connection):
        raise ConnectionError("its answers are out of step, or the server has closed it")


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
