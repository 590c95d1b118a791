from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator

import pytest

from cluster_kit_aiocache.awake import Awake


class Naps(selectors.DefaultSelector):
    """What a loop sleeps with. Each look for events takes 20 us, and a sleep what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.looks = 0
        self.slept = 0
        self.then: Callable[[], None] = lambda: None  # at each look

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += 0.00002
        self.looks += 1
        self.then()
        if timeout is None or timeout > 0:
            self.slept += 1
            self.now += timeout or 0.0
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.naps = Naps()
        super().__init__(self.naps)

    def time(self) -> float:
        return self.naps.now


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


async def answer(loop: Loop, looks: int) -> None:
    """Come after the loop has looked so often."""
    came, due = loop.create_future(), loop.naps.looks + looks

    def look() -> None:
        if loop.naps.looks >= due and not came.done():
            came.set_result(None)

    loop.naps.then = look
    await came


async def asked(loop: Loop, awake: Awake, looks: int, times: int) -> None:
    for _ in range(times):
        with awake.for_an_answer():
            await answer(loop, looks)


def test_for_a_server_nearby_the_loop_does_not_sleep(loop: Loop) -> None:
    loop.run_until_complete(asked(loop, Awake(), looks=5, times=100))

    assert loop.naps.slept == 0
    assert loop.naps.looks < 100 * 8


def test_it_does_not_stay_awake_for_one_afar(loop: Loop) -> None:
    loop.run_until_complete(asked(loop, Awake(), looks=100, times=100))

    assert loop.naps.slept > 98 * 100


@pytest.mark.parametrize("given_up", [False, True])
def test_it_sleeps_as_soon_as_the_answer_is_there_or_nobody_waits_for_it(
    loop: Loop, *, given_up: bool
) -> None:
    async def ask_and_rest() -> int:
        asking = loop.create_task(asked(loop, Awake(), looks=3, times=1))
        if given_up:
            await asyncio.sleep(0)
            asking.cancel()
        await asyncio.wait({asking})
        assert not loop.naps.slept
        before = loop.naps.looks
        await answer(loop, 5)
        return loop.naps.looks - before - loop.naps.slept

    assert loop.run_until_complete(ask_and_rest()) <= 1  # looks that were no sleep
