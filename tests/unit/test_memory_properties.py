"""Whatever happens in whatever order: no task is lost, and none is settled twice."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster_kit.errors import ConnectionLost
from cluster_kit.testing.clock import FakeClock
from cluster_kit.testing.waiting import eventually
from tests.unit.memory_bench import QUEUE, Inbox, Instance, fresh_url, joined, let_run

INSTANCES = 3

instance = st.integers(0, INSTANCES - 1)
step = st.one_of(
    st.tuples(st.just("publish"), instance, st.sampled_from([0.0, 0.0, 0.5, 3.0])),
    st.tuples(st.just("expiring"), instance, st.sampled_from([0.0, 1.0, 4.0])),
    st.tuples(st.just("ack"), instance, st.integers(0, 5)),
    st.tuples(st.just("give back"), instance, st.integers(0, 5)),
    st.tuples(st.just("consume"), instance, st.integers(1, 3)),
    st.tuples(st.just("pause"), instance, st.none()),
    st.tuples(st.just("resume"), instance, st.none()),
    st.tuples(st.just("close"), instance, st.none()),
    st.tuples(st.just("disconnect"), instance, st.none()),
    st.tuples(st.just("reconnect"), instance, st.none()),
    st.tuples(st.just("remove dead"), instance, st.none()),
    st.tuples(st.just("advance"), instance, st.sampled_from([0.5, 2.0])),
    st.tuples(st.just("run"), instance, st.none()),
)
Step = tuple[str, int, float | int | None]


class World:
    """Instances on one hub, what was done to them, and where each task must be."""

    def __init__(self, instances: Sequence[Instance], clock: FakeClock) -> None:
        self.instances = instances
        self.clock = clock
        self.inboxes: dict[int, Inbox] = {}
        self.linked = dict.fromkeys(range(len(instances)), True)
        self.published: set[str] = set()
        self.settled: Counter[str] = Counter()

    async def do(self, what: str, who: int, argument: float | None) -> None:
        one, inbox = self.instances[who], self.inboxes.get(who)
        if what in {"publish", "expiring"} and self.linked[who]:
            await self._publish(one, what, argument or 0.0)
        elif what in {"ack", "give back"} and inbox is not None and inbox.received:
            await self._settle(inbox, what, int(argument or 0))
        elif what == "consume" and inbox is None and self.linked[who]:
            self.inboxes[who] = await one.consume(prefetch=int(argument or 1))
        elif what in {"pause", "resume"} and inbox is not None:
            await (inbox.consumer.pause() if what == "pause" else inbox.consumer.resume())
        elif what == "close" and inbox is not None:
            await inbox.consumer.close()
            del self.inboxes[who]
        elif what == "advance":
            await self.clock.advance(argument or 0.0)
        elif what == "run":
            await let_run(3)
        else:
            await self._do_rarely(what, who)

    async def _do_rarely(self, what: str, who: int) -> None:
        one = self.instances[who]
        if what == "disconnect":
            one.adapter.disconnect()
            self.linked[who] = False
        elif what == "reconnect":
            one.adapter.reconnect()
            self.linked[who] = True
        elif what == "remove dead" and self.linked[who]:
            async with one.adapter.read_dead(QUEUE) as entries:
                async for entry in entries:
                    await entry.remove()
                    self.settled[entry.envelope.id] += 1
                    break

    async def _publish(self, one: Instance, what: str, seconds: float) -> None:
        id_ = str(len(self.published))
        if what == "publish":
            await one.publish(id_, delay=seconds)
        else:
            await one.publish(id_, expires_at=self.clock.wall() + seconds)
        self.published.add(id_)

    async def _settle(self, inbox: Inbox, what: str, index: int) -> None:
        received = inbox.received.pop(index % len(inbox.received))
        try:
            await (received.ack() if what == "ack" else received.give_back())
        except ConnectionLost:
            return
        if what == "ack":
            self.settled[received.envelope.id] += 1

    def check(self) -> None:
        """Every task is in one place: settled once, or waiting, in hand, or dead."""
        assert set(self.settled.values()) <= {1}
        hub = self.instances[0].adapter._used
        assert hub is not None
        in_hand = sum(
            len(consumer._taker.unsettled)
            for each in self.instances
            for consumer in each.adapter._consumers
        )
        kept = hub.hub.unfinished() + hub.hub.dead() + in_hand
        assert kept == len(self.published) - len(self.settled)

    def prefetch_holds(self) -> None:
        for each in self.instances:
            for consumer in each.adapter._consumers:
                assert len(consumer._taker.unsettled) <= consumer._taker.prefetch

    async def end(self) -> None:
        """Take everything that is left, as a healthy instance would."""
        for who, one in enumerate(self.instances):
            one.adapter.reconnect()
            if who in self.inboxes:
                await self.inboxes[who].consumer.close()
        await self.clock.advance(10)
        left = await collect(self.instances[0])
        assert left == self.published - set(self.settled)


async def collect(one: Instance) -> set[str]:
    """Ack all there is and return the ids, dead ones included; each must come once."""
    seen = [envelope.id for envelope in await one.dead()]
    ready = await one.ready()
    inbox = await one.consume(prefetch=10)
    for _ in range(ready):
        await eventually(lambda: inbox.received, interval=0.001)
        received = inbox.received.pop(0)
        seen.append(received.envelope.id)
        await received.ack()
    assert len(seen) == len(set(seen))
    return set(seen)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=60))
def test_no_task_is_lost_or_settled_twice(steps: list[Step]) -> None:
    async def play() -> None:
        clock, url = FakeClock(), fresh_url()
        async with AsyncExitStack() as stack:
            made = [
                await stack.enter_async_context(joined(url, clock=clock)) for _ in range(INSTANCES)
            ]
            world = World(made, clock)
            for what, who, argument in steps:
                await world.do(what, who, argument)
                world.check()
                world.prefetch_holds()
            await world.end()

    asyncio.run(play())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=40))
def test_a_kill_at_any_point_loses_no_task_and_revives_none(steps: list[Step]) -> None:
    async def play(folder: Path) -> None:
        clock, path = FakeClock(), folder / "work.db"
        url = f"{fresh_url()}?path={path}"
        async with AsyncExitStack() as stack:
            made = [
                await stack.enter_async_context(joined(url, clock=clock)) for _ in range(INSTANCES)
            ]
            world = World(made, clock)
            for what, who, argument in steps:
                await world.do(what, who, argument)
                world.check()
            for file in (path, path.with_name("work.db-wal")):
                if file.exists():
                    shutil.copy(file, folder / file.name.replace("work", "copy"))
        await clock.advance(10)
        async with joined(f"{fresh_url()}?path={folder / 'copy.db'}", clock=clock) as one:
            assert await collect(one) == world.published - set(world.settled)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))
