"""The broker closes the connections of one process, again and again, while it works."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack, suppress
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
PUBLISHERS = 4  # of each

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


def remains() -> tuple[int, int]:
    """Return how many connections this process still knows of, and how many files it has open."""
    gc.collect()
    known = sum(isinstance(thing, AmqpProtocol | PlaneChannel) for thing in gc.get_objects())
    return known, len(list(Path("/proc/self/fd").iterdir()))


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


async def test_a_thousand_closed_connections_lose_nothing_and_leave_nothing(
    rabbitmq: str, rabbitmq_server: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(rabbitmq, crash_limit=KILLS) as first:  # makes the queue
        await first.publish(first.task())
        app = first.app
    monkeypatch.setattr(Backoff, "next", lambda _: 0.005)
    vhost = rabbitmq.rpartition("/")[2]
    before = remains()
    async with AsyncExitStack() as stack:
        instances = [
            await stack.enter_async_context(
                bench(f"{rabbitmq}?declare=none", app=app, crash_limit=KILLS)
            )
            for _ in range(INSTANCES)
        ]
        acker = Acker()
        for made in instances:
            await made.adapter.consume(made.queue(), prefetch=32, on_delivery=acker)
        load = Load(instances)
        loading = asyncio.create_task(load.run(), name="taker load")
        while len(reasons(instances)) < KILLS:
            await asyncio.to_thread(rabbitmq_server.ctl, "eval", CLOSE_MANY % (vhost, AT_ONCE))
        load.stop()
        await loading

        await eventually(lambda: load.stored - acker.ids, lambda missing: not missing)
        await eventually(lambda: {made.adapter.health().status for made in instances} == {"ok"})
        assert sum("a test" in reason for reason in reasons(instances)) > KILLS * 0.9
        assert len(load.stored) > KILLS
        # A protocol and a channel for each of the two connections, and one that is ending.
        await eventually(remains, lambda found: found[0] <= before[0] + 5 * INSTANCES)
    await eventually(lambda: remains()[0] <= before[0])
    assert remains()[1] <= before[1] + 2


def reasons(instances: list[Bench]) -> list[str]:
    return [str(fields["reason"]) for made in instances for fields in made.heard("connection.lost")]
