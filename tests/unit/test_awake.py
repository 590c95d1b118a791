from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable

import pytest

from cluster_kit_aiocache.redis_lines import Lines


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


class Server:
    """A pool of connections, each answered after so many looks."""

    def __init__(self, loop: Loop, looks: int) -> None:
        self.loop = loop
        self.looks = looks

    async def get_connection(self) -> Server:
        return self

    async def send_packed_command(self, command: bytes, *, check_health: bool) -> None:
        assert command
        assert not check_health

    async def read_response(self) -> str:
        answer: asyncio.Future[str] = self.loop.create_future()
        due = self.loop.naps.looks + self.looks

        def look() -> None:
            if self.loop.naps.looks >= due and not answer.done():
                answer.set_result("answer")

        self.loop.naps.then = look
        return await answer


@pytest.fixture
def loop() -> Loop:
    return Loop()


def asked(loop: Loop, looks: int, times: int) -> int:
    """Ask so often, and return how often the loop slept."""

    async def ask() -> None:
        lines = Lines(Server(loop, looks))
        for _ in range(times):
            assert await lines.execute_command("GET", "key") == "answer"

    try:
        loop.run_until_complete(ask())
    finally:
        loop.close()
    return loop.naps.slept


def test_for_a_server_nearby_the_loop_does_not_sleep(loop: Loop) -> None:
    assert asked(loop, looks=5, times=100) == 0
    assert loop.naps.looks < 100 * 8


def test_it_does_not_stay_awake_for_one_afar(loop: Loop) -> None:
    assert asked(loop, looks=100, times=100) > 80 * 90
