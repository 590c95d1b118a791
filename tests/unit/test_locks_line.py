from __future__ import annotations

import asyncio
import random
import time

import pytest

from cluster_kit.locks.line import Line, Lines


@pytest.mark.asyncio
async def test_turns_are_given_in_the_order_of_asking() -> None:
    line, served = Line(), list[int]()
    await line.enter()

    async def wait(number: int) -> None:
        await line.enter()
        served.append(number)
        line.leave()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(wait(number))
        await asyncio.sleep(0)
        line.leave()

    assert served == [0, 1, 2, 3, 4]
    assert line.idle


@pytest.mark.asyncio
async def test_as_many_have_turns_at_a_time_as_there_are() -> None:
    line, inside, served = Line(3), set[int](), list[int]()

    async def visit(number: int) -> None:
        await line.enter()
        inside.add(number)
        served.append(number)
        assert len(inside) <= 3
        await asyncio.sleep(0)
        inside.remove(number)
        line.leave()

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(visit(number))
        await asyncio.sleep(0)
        assert line.full
        assert len(inside) == 3

    assert served == list(range(10))
    assert line.idle
    assert not line.full


@pytest.mark.asyncio
async def test_a_turn_given_to_somebody_just_cancelled_goes_on() -> None:
    line = Line()
    await line.enter()
    leaving, staying = (asyncio.create_task(line.enter()) for _ in range(2))
    await asyncio.sleep(0)

    line.leave()  # the turn is on its way to `leaving`
    leaving.cancel()
    await staying

    assert leaving.cancelled()
    line.leave()
    assert line.idle


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(20))
async def test_whoever_is_cancelled_whenever_one_has_the_turn_and_none_is_forgotten(
    seed: int,
) -> None:
    chance, lines = random.Random(seed), Lines()
    inside = most = 0

    async def visit() -> None:
        nonlocal inside, most
        line = lines.find("a")
        await line.enter()
        inside += 1
        most = max(most, inside)
        try:
            await asyncio.sleep(0)
        finally:
            inside -= 1
            lines.leave("a", line)

    tasks = [asyncio.create_task(visit()) for _ in range(30)]
    for _ in range(40):
        chance.choice(tasks).cancel()
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.wait(tasks)

    assert most <= 1
    assert lines.find("a").idle


@pytest.mark.asyncio
async def test_a_line_nobody_stands_in_is_forgotten() -> None:
    lines = Lines()
    line = lines.find("a")
    await line.enter()

    lines.leave("a", line)

    assert lines.find("a") is not line


@pytest.mark.asyncio
async def test_to_leave_from_the_end_of_a_long_line_is_as_quick_as_from_its_head() -> None:
    async def leave(*, last_first: bool) -> float:
        line = Line()
        await line.enter()
        tasks = [asyncio.create_task(line.enter()) for _ in range(20_000)]
        await asyncio.sleep(0)
        began = time.process_time()
        for task in reversed(tasks) if last_first else tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert line.last
        return time.process_time() - began

    # The least of several: whatever else the machine does only adds to it.
    backwards, forwards = [
        min([await leave(last_first=last_first) for _ in range(3)]) for last_first in (True, False)
    ]
    assert backwards < 4 * forwards
