from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import AuthenticationError, NoScriptError, ReadOnlyError
from redis.exceptions import ConnectionError as ConnectionLost

from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.waiting import eventually
from cluster_kit_aiocache.redis_lines import Lines


class Connection:
    """Answers with what the test says; an error is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.open = True
        self.unread = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def send_packed_command(self, command: bytes, *, check_health: bool) -> None:
        assert command
        assert not check_health

    async def can_read(self) -> bool:
        return self.unread

    async def read_response(self) -> str:
        await self.may_answer.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait
        self.open = False


class Pool:
    """Has these, one after another; an error is raised instead, when `may_refuse`."""

    def __init__(self, *made: Connection | Exception) -> None:
        self.made = list(made)
        self.may_refuse = asyncio.Event()

    async def get_connection(self) -> Connection:
        made = self.made.pop(0)
        if isinstance(made, Exception):
            await self.may_refuse.wait()
            raise made
        return made

    async def release(self, connection: Connection) -> None:
        assert not connection.open

    async def disconnect(self, *, inuse_connections: bool) -> None:
        assert not inuse_connections


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "refused",
    [
        AuthenticationError("invalid username-password pair"),
        Connection(ConnectionLost("max number of clients reached")),
    ],
)
async def test_a_new_connection_that_is_refused_costs_none_that_works(
    refused: Connection | Exception,
) -> None:
    good = [Connection("1"), Connection("2")]
    pool = Pool(*good, refused)
    lines = Lines(pool, Supervisor())
    if isinstance(refused, Connection):
        refused.may_answer = pool.may_refuse
    for connection in good:
        connection.may_answer.clear()
    async with asyncio.TaskGroup() as group:
        working = [group.create_task(lines.execute_command("A")) for _ in good]
        late = asyncio.ensure_future(lines.execute_command("B"))
        await eventually(lambda: not pool.made)
        for connection in good:  # those are free again while the server thinks of the third
            connection.may_answer.set()
    pool.may_refuse.set()

    with pytest.raises(ConnectionLost):
        await late
    assert sorted(task.result() for task in working) == ["1", "2"]
    assert [connection.open for connection in good] == [True, True]


@pytest.mark.asyncio
@pytest.mark.parametrize("gone", [ConnectionLost("closed"), ReadOnlyError("a replica")])
async def test_a_command_that_finds_its_server_gone_is_tried_on_a_new_connection(
    gone: Exception,
) -> None:
    old, idle, new = Connection("1", gone), Connection("1"), Connection("2")
    lines = Lines(Pool(old, idle, new), Supervisor())
    old.may_answer.clear()
    first = asyncio.ensure_future(lines.execute_command("A"))
    await asyncio.sleep(0)
    await lines.execute_command("B")  # on another one, as the first is in use
    old.may_answer.set()
    await first

    assert await lines.execute_command("C") == "2"
    assert not old.open
    assert not idle.open
    assert new.open


@pytest.mark.asyncio
@pytest.mark.parametrize("comes", ["before it is asked", "with the answer"])
async def test_an_answer_nobody_asked_for_is_taken_for_none_and_ends_its_connection(
    comes: str,
) -> None:
    shifted, new = Connection("1", "stray"), Connection("2")
    lines = Lines(Pool(shifted, new), Supervisor())
    assert await lines.execute_command("A") == "1"
    if comes == "before it is asked":
        shifted.unread = True
    else:
        shifted.may_answer.clear()
        asyncio.get_running_loop().call_soon(setattr, shifted, "unread", True)
        asyncio.get_running_loop().call_soon(shifted.may_answer.set)

    assert await lines.execute_command("B") == "2"
    assert not shifted.open


@pytest.mark.asyncio
async def test_what_is_not_repeated_fails_once_when_the_server_was_restarted() -> None:
    dead = [Connection("1", ConnectionLost("closed")) for _ in range(3)]
    lines = Lines(Pool(*dead, Connection("2")), Supervisor())
    for connection in dead:
        connection.may_answer.clear()
    async with asyncio.TaskGroup() as group:
        for _ in dead:
            group.create_task(lines.execute_command("A"))
        await asyncio.sleep(0)
        for connection in dead:
            connection.may_answer.set()

    with pytest.raises(ConnectionLost):
        await lines.execute_commands(["B"], repeat=False)
    assert await lines.execute_commands(["C"], repeat=False) == ["2"]


@pytest.mark.asyncio
async def test_a_connection_that_takes_longer_than_a_call_is_there_for_the_next() -> None:
    connection, pool = Connection("1"), SlowPool()
    lines = Lines(pool, Supervisor())
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await lines.execute_command("A")
    assert pool.asked == 1
    pool.made.append(connection)
    pool.may_refuse.set()

    assert await lines.execute_command("A") == "1"
    assert pool.asked == 1


class SlowPool(Pool):
    """As `Pool`, after a while."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def get_connection(self) -> Connection:
        self.asked += 1
        await self.may_refuse.wait()
        return await super().get_connection()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("gone", "in_doubt"), [(ConnectionLost("closed"), 1), (ReadOnlyError("a replica"), 0)]
)
async def test_a_repetition_is_told_where_the_first_request_may_come_yet(
    gone: Exception, in_doubt: int
) -> None:
    told: list[str] = []
    lines = Lines(Pool(Connection("1", gone), Connection("2")), Supervisor())
    await lines.execute_commands("A", on_repeat=lambda: told.append("A"))

    assert await lines.execute_commands("B", on_repeat=lambda: told.append("B")) == ["2"]

    assert told == ["B"] * in_doubt


@pytest.mark.asyncio
async def test_what_was_refused_is_no_repetition() -> None:
    told: list[str] = []
    lines = Lines(Pool(Connection(NoScriptError("unknown"), "1")), Supervisor())

    with pytest.raises(NoScriptError):
        await lines.execute_commands("EVALSHA", on_repeat=lambda: told.append("EVALSHA"))
    assert await lines.execute_commands("EVAL", on_repeat=lambda: told.append("EVAL")) == ["1"]

    assert told == []
