from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.clock import FakeClock
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.control import on_demand
from cluster_kit_amqp.control.on_demand import Control
from cluster_kit_amqp.link import DialFailed, LinkDown
from cluster_kit_amqp.options import Host, parse_url

pytestmark = pytest.mark.asyncio


class FakeLink:
    def __init__(self) -> None:
        self.lost: str | None = None
        self.blocked: str | None = None
        self.closed = 0

    @asynccontextmanager
    async def channel(self, *, confirms: bool = False) -> AsyncIterator[Any]:
        yield None

    async def close(self) -> None:
        self.closed += 1


class Broker:
    """Counts the links made; refuses while `refusal` says why."""

    def __init__(self) -> None:
        self.links: list[FakeLink] = []
        self.tried: list[str] = []
        self.refusal: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def dial(self, host: Host) -> FakeLink:
        self.tried.append(str(host))
        await self.gate.wait()
        if self.refusal is not None:
            raise DialFailed(self.refusal)
        self.links.append(FakeLink())
        return self.links[-1]


@contextmanager
def controlling(broker: Broker, **given: Any) -> Iterator[Control[FakeLink]]:
    context = AdapterContext(
        app="shop", instance_id="one", tasks=Supervisor(), emit=lambda *_, **__: None, **given
    )
    control = Control(broker.dial, parse_url("amqp://a,b/?shuffle=false"), context)
    control.open()
    yield control


async def test_there_is_one_connection_while_somebody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_demand, "IDLE_SECONDS", 0.02)
    broker = Broker()
    with controlling(broker) as control:
        async with control.link() as first, control.link() as second:
            assert first is second
            await asyncio.sleep(0.1)
            assert broker.links[0].closed == 0
        async with control.link() as third:
            assert third is first
        await eventually(lambda: broker.links[0].closed == 1)
        async with control.link() as fourth:
            assert fourth is not first
        await control.close()

    assert [link.closed for link in broker.links] == [1, 1]
    assert broker.tried == ["a:5672", "a:5672"]


async def test_whoever_comes_meanwhile_waits_for_the_same_connection() -> None:
    broker = Broker()
    broker.gate.clear()
    with controlling(broker) as control:
        seen: list[object] = []

        async def ask() -> None:
            async with control.link() as link:
                seen.append(link)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask()) for _ in range(5)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            broker.gate.set()
        await control.close()

    assert len(seen) == 4
    assert len(set(map(id, seen))) == 1


async def test_every_host_is_tried_and_the_next_attempt_waits_longer_each_time(
    fake_clock: FakeClock,
) -> None:
    broker = Broker()
    broker.refusal = "no"
    with controlling(broker, clock=fake_clock) as control:
        with pytest.raises(LinkDown, match="a:5672: no; b:5672: no") as caught:
            async with control.link():
                pass
        assert not caught.value.sent

        async def insist() -> None:
            while True:
                try:
                    async with control.link():
                        return
                except LinkDown:
                    continue

        insisting = asyncio.create_task(insist())
        await asyncio.sleep(0.05)
        assert len(broker.tried) == 2
        for _ in range(4):
            await fake_clock.advance(0.3)
        assert 4 <= len(broker.tried) <= 10
        broker.refusal = None
        await fake_clock.advance(10)
        await insisting
        await control.close()


async def test_a_connection_lost_in_use_is_not_used_again() -> None:
    broker = Broker()
    with controlling(broker) as control:
        async with control.link():
            broker.links[0].lost = "gone"
        async with control.link() as link:
            assert link is broker.links[1]
        await control.close()

    assert [link.closed for link in broker.links] == [1, 1]


async def test_who_is_on_a_blocked_connection_keeps_it_and_others_get_another() -> None:
    broker = Broker()
    with controlling(broker) as control:
        async with control.link() as first:
            broker.links[0].blocked = "memory"
            async with control.link() as second:
                assert second is not first
            assert broker.links[0].closed == 0
        assert broker.links[0].closed == 1
        await control.close()


async def test_closed_is_closed_even_for_one_that_is_being_made() -> None:
    broker = Broker()
    broker.gate.clear()
    with controlling(broker) as control:
        entering = asyncio.create_task(control.link().__aenter__())
        await asyncio.sleep(0)
        await control.close()
        broker.gate.set()
        with pytest.raises(LinkDown, match="not connected"):
            await entering
        assert broker.links[0].closed == 1
        with pytest.raises(LinkDown, match="not connected"):
            async with control.link():
                pass


async def test_a_silent_host_costs_the_timeout() -> None:
    broker = Broker()
    broker.gate.clear()
    with (
        controlling(broker, connect_timeout=0.02) as control,
        pytest.raises(LinkDown, match=r"a:5672: no answer within 0\.02 s; b:5672: no answer"),
    ):
        async with control.link():
            pass
