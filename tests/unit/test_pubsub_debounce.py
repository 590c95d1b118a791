from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.broadcast import Broadcast
from cluster_kit.pubsub.debounce import Debouncer, payload_key
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.clock import FakeClock


def message(body: str, channel: str = "a") -> Broadcast:
    return Broadcast(realm="pubsub", channel=channel, id="1", body=body.encode())


class Bench:
    """A debouncer on a clock that stands still."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.supervisor = Supervisor()
        self.gone: list[tuple[float, str]] = []
        self.debouncer = Debouncer(self.clock, self.supervisor, self._let_go, name="debounce")

    def _let_go(self, message: Broadcast) -> None:
        self.gone.append((round(self.clock.monotonic(), 6), message.body.decode()))

    def hold(self, body: str, wait: float = 1.0, max_wait: float | None = None) -> None:
        held = message(body)
        self.debouncer.hold(payload_key(held), held, wait, max_wait)


@pytest.mark.asyncio
async def test_equal_messages_go_once_after_the_last() -> None:
    bench = Bench()
    for _ in range(3):
        bench.hold("1")
        await bench.clock.advance(0.6)

    assert bench.gone == []
    await bench.clock.advance(5)

    assert bench.gone == [(2.2, "1")]
    assert len(bench.debouncer) == 0
    assert bench.clock.sleepers == 0


@pytest.mark.asyncio
async def test_a_steady_stream_goes_at_max_wait() -> None:
    bench = Bench()
    for _ in range(10):
        bench.hold("1", wait=1.0, max_wait=2.5)
        await bench.clock.advance(0.5)

    await bench.clock.advance(5)
    assert bench.gone == [(2.5, "1"), (5.0, "1")]


@pytest.mark.asyncio
async def test_a_shorter_wait_is_not_held_up_by_a_longer_one() -> None:
    bench = Bench()
    bench.hold("long", wait=100)
    await bench.clock.advance(1)
    bench.hold("short", wait=1)
    bench.hold("long", wait=2)

    await bench.clock.advance(10)

    assert bench.gone == [(2.0, "short"), (3.0, "long")]


@pytest.mark.asyncio
async def test_what_is_cancelled_never_goes() -> None:
    bench = Bench()
    bench.hold("1")
    bench.hold("2")

    assert bench.debouncer.cancel() == 2
    await bench.clock.advance(10)
    assert bench.gone == []
    assert bench.clock.sleepers == 0

    bench.hold("3")
    await bench.clock.advance(10)
    assert [body for _, body in bench.gone] == ["3"]
    assert await bench.supervisor.close() == []


def test_payloads_are_equal_however_they_were_encoded() -> None:
    assert payload_key(message('{"a": 1, "b": 2}')) == payload_key(message('{"b":2,"a":1}'))
    assert payload_key(message("1")) != payload_key(message("1.0"))
    assert payload_key(message("1")) != payload_key(message("1", channel="b"))
    assert payload_key(message("not json")) == ("a", b"not json")
    assert payload_key(message("[" * 100_000))[1] == b"[" * 100_000


ARRIVALS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(min_value=0, max_value=8)), max_size=30
)


def expected(arrivals: list[tuple[str, int]], max_wait: float | None) -> list[tuple[float, str]]:
    """The definition: each burst of equal messages, told apart by silence or by its bound."""
    gone: list[tuple[float, str]] = []
    for body in "xyz":
        now, first, due = 0.0, 0.0, None
        for which, pause in arrivals:
            if due is not None and due <= now:
                gone.append((due, body))
                due = None
            if which == body:
                first = now if due is None else first
                due = now + 1.0 if max_wait is None else min(now + 1.0, first + max_wait)
            now += pause / 4
        if due is not None:
            gone.append((due, body))
    return sorted(gone)


@given(ARRIVALS, st.sampled_from([None, 1.0, 1.5, 2.125]))
def test_what_goes_and_when_is_as_defined(
    arrivals: list[tuple[str, int]], max_wait: float | None
) -> None:
    async def scenario() -> list[tuple[float, str]]:
        bench = Bench()
        for body, pause in arrivals:
            bench.hold(body, max_wait=max_wait)
            await bench.clock.advance(pause / 4)
        await bench.clock.advance(10)
        assert await bench.supervisor.close() == []
        return bench.gone

    assert sorted(asyncio.run(scenario())) == expected(arrivals, max_wait)
