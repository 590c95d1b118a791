from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from cluster_kit.deadlines import Deadlines, Within
from cluster_kit.testing.waiting import eventually

pytestmark = pytest.mark.asyncio


class Item:
    def __init__(self, name: str, expired: list[str]) -> None:
        self.at = 0.0
        self.name = name
        self._expired = expired

    def expire(self) -> None:
        self._expired.append(self.name)


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    made = Deadlines()
    yield made
    made.close()


async def test_each_expires_once_at_its_own_time_however_they_were_begun(
    deadlines: Deadlines,
) -> None:
    expired = list[str]()
    for name, seconds in [("late", 0.06), ("never", 60.0), ("first", 0.0), ("second", 0.03)]:
        deadlines.start(Item(name, expired), seconds)

    await eventually(lambda: len(expired) == 3)
    assert expired == ["first", "second", "late"]


async def test_what_ended_in_time_does_not_expire(deadlines: Deadlines) -> None:
    expired = list[str]()
    quick, slow = Item("quick", expired), Item("slow", expired)
    deadlines.start(quick, 0.01)
    deadlines.start(slow, 0.02)

    deadlines.end(quick)
    deadlines.end(quick)
    await eventually(lambda: bool(expired))
    assert expired == ["slow"]


async def test_one_that_begins_while_others_expire_is_not_forgotten(deadlines: Deadlines) -> None:
    expired = list[str]()
    follower = Item("follower", expired)

    class Leader(Item):
        def expire(self) -> None:
            super().expire()
            deadlines.start(follower, 0.01)

    deadlines.start(Leader("leader", expired), 0.0)
    await eventually(lambda: len(expired) == 2)
    assert expired == ["leader", "follower"]


async def test_nothing_expires_after_the_end(deadlines: Deadlines) -> None:
    expired = list[str]()
    deadlines.start(Item("one", expired), 0.0)
    deadlines.close()
    deadlines.start(two := Item("two", expired), 0.0)

    await eventually(lambda: bool(expired))
    assert expired == ["two"]
    deadlines.end(two)


async def test_a_block_that_takes_too_long_is_cut_short(deadlines: Deadlines) -> None:
    with pytest.raises(TimeoutError), Within(deadlines, 0.01):
        await asyncio.Event().wait()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_block_that_ends_in_time_is_left_alone(deadlines: Deadlines) -> None:
    with Within(deadlines, 0.01):
        pass
    await asyncio.sleep(0.03)

    with pytest.raises(KeyError), Within(deadlines, 60):
        raise KeyError


async def test_the_inner_of_two_blocks_is_the_one_that_is_cut_short(deadlines: Deadlines) -> None:
    with Within(deadlines, 60):
        with pytest.raises(TimeoutError), Within(deadlines, 0.01):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_a_cancellation_from_elsewhere_stays_one(deadlines: Deadlines) -> None:
    async def bounded() -> None:
        with Within(deadlines, 0.01):
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()  # while it is being cut short

    task = asyncio.create_task(bounded())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_a_blocked_loop_the_sockets_are_read_first(deadlines: Deadlines) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    async def answer() -> None:
        with Within(deadlines, 0.1):
            assert await reader.readexactly(2) == b"ok"

    waiting = asyncio.create_task(answer())
    await asyncio.sleep(0)
    theirs.send(b"ok")
    time.sleep(0.8)  # noqa: ASYNC251 - what a careless handler does

    await waiting
    writer.close()
    theirs.close()
