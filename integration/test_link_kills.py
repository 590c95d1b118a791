"""The broker closes the connections of one process, again and again, while it works."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster_kit.errors import ConnectionLost
from cluster_kit.ports import Received
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.backoff import Backoff
from cluster_kit_amqp.plane.channel import PlaneChannel
from cluster_kit_amqp.plane.protocol import AmqpProtocol
from integration.amqp_bench import Bench, bench
from integration.load.vitals import memory

pytestmark = [
    pytest.mark.broker,
    pytest.mark.broker_control,
    pytest.mark.slow,
    pytest.mark.asyncio,
    pytest.mark.timeout(240),
]

KILLS = 1000
AT_ONCE = 250  # kills by one command: starting it takes most of a second
INSTANCES = 3
APP = "kills"  # the same from the first kill on: what is remembered of an application is no growth
PUBLISHERS = 4  # of each
GROWTH = 30.0  # MB; the test itself keeps ids and events. A thousand connections would be more

CLOSE_MANY = """
    Ours = fun(P) ->
               (catch rabbit_networking:connection_info(P, [vhost])) == [{vhost, <<"%s">>}]
           end,
    Kill = fun Again(Left) when Left =< 0 -> done;
               Again(Left) ->
                   Found = [P || P <- rabbit_networking:connections(), Ours(P)],
                   [catch rabbit_networking:close_connection(P, "a test") || P <- Found],
                   timer:sleep(15),
                   Again(Left - length(Found))
           end,
    Kill(%d).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a process has: connections and channels it knows of, tasks, files, objects, MB."""

    links: int
    tasks: int
    files: int
    objects: int
    memory: float

    @classmethod
    def now(cls) -> Remains:
        gc.collect()
        objects = gc.get_objects()
        return cls(
            links=sum(isinstance(thing, AmqpProtocol | PlaneChannel) for thing in objects),
            tasks=len(asyncio.all_tasks()),
            files=len(list(Path("/proc/self/fd").iterdir())),
            objects=len(objects),
            memory=memory(),
        )


class Acker:
    """Acknowledges every delivery a moment later; keeps nothing but the ids."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self._tasks = Supervisor()

    def __call__(self, received: Received) -> None:
        self._tasks.spawn(self._ack(received), name="taker ack")

    async def _ack(self, received: Received) -> None:
        await asyncio.sleep(0)
        with suppress(ConnectionLost):  # it comes again
            await received.ack()
            self.ids.add(received.envelope.id)


class Load:
    """Publishes without a pause; what the adapter confirmed must be taken."""

    def __init__(self, instances: list[Bench]) -> None:
        self._instances, self._stop = instances, False
        self.stored: set[str] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for made in self._instances * PUBLISHERS:
                group.create_task(self._publish(made))

    async def _publish(self, made: Bench) -> None:
        while not self._stop:
            task = made.task()
            await made.adapter.publish(task, timeout=30.0)
            self.stored.add(task.id)

    def stop(self) -> None:
        self._stop = True


async def kill_all_the_time(url: str, server: RabbitServer, kills: int) -> list[Remains]:
    """Kill while there is work; return what there was after every so many."""
    rounds: list[Remains] = []
    vhost = url.rpartition("/")[2]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(bench(url, app=APP, crash_limit=KILLS))
        await first.publish(first.task())  # makes the queue
        await first.publish(first.task(), delay=0.3)  # makes what returned tasks wait in
        others = [
            bench(f"{url}?declare=none", app=APP, crash_limit=KILLS) for _ in range(INSTANCES - 1)
        ]
        instances = [first, *[await stack.enter_async_context(other) for other in others]]
        acker = Acker()
        for made in instances:
            await made.adapter.consume(made.queue(), prefetch=32, on_delivery=acker)
        load = Load(instances)
        loading = asyncio.create_task(load.run(), name="taker load")
        while len(reasons(instances)) < kills:
            at_once = CLOSE_MANY % (vhost, min(kills, AT_ONCE))
            await asyncio.to_thread(server.ctl, "eval", at_once)
            rounds.append(Remains.now())
        load.stop()
        await loading

        await eventually(lambda: load.stored - acker.ids, lambda missing: not missing)
        await eventually(lambda: {made.adapter.health().status for made in instances} == {"ok"})
        assert sum("a test" in reason for reason in reasons(instances)) > kills * 0.9
        assert len(load.stored) > kills
    return rounds


async def test_a_thousand_closed_connections_lose_nothing_and_leave_nothing(
    rabbitmq: str,
    rabbitmq_server: RabbitServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "cluster_kit_amqp.connection")  # what is logged is kept
    monkeypatch.setattr(Backoff, "next", lambda _: 0.005)
    await kill_all_the_time(rabbitmq, rabbitmq_server, 10)  # makes whatever is made only once
    before = Remains.now()
    rounds = await kill_all_the_time(rabbitmq, rabbitmq_server, KILLS)

    assert all(found.links < before.links + KILLS / 10 for found in rounds), rounds
    assert rounds[-1].memory - rounds[0].memory < GROWTH, rounds
    after = await eventually(
        Remains.now,
        lambda found: found.links <= before.links + KILLS / 100 and found.tasks <= before.tasks,
    )
    assert after.files <= before.files + 2
    assert after.objects <= before.objects + KILLS / 5, (before, rounds, after)


def reasons(instances: list[Bench]) -> list[str]:
    return [str(fields["reason"]) for made in instances for fields in made.heard("connection.lost")]
