"""What the transports of broadcasts cost, and how they bear the loss of every connection.

``python integration/load/broadcast.py --instances 30 --rate 200 --seconds 10``

So many instances, in this process, subscribe to one channel, and one more publishes at a steady
rate. Measured are the delay from publish to handler, processor time of this process and of the
broker, and the broker's memory for the subscriptions. Then the broker closes every connection at
once while publishing goes on: how long until all are well again, what was missed, who was told.

Without ``--url`` it uses a RabbitMQ as the tests do; it must take commands from here.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from cluster_kit import Cluster, Settings
from cluster_kit.broadcast import TRANSPORTS, Transport
from cluster_kit.names import new_id
from cluster_kit.testing.servers import NodeUnavailableError, RabbitServer, start_rabbitmq
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.control.on_demand import IDLE_SECONDS

CHANNEL = "prices.changed"
_MEMORY = "[erlang:garbage_collect(P) || P <- erlang:processes()], erlang:memory(total)."
_RUNTIME = "element(1, erlang:statistics(runtime))."
_GAP_SECONDS = 2.0  # within which a gap is told
_STORM_SECONDS = 3.0  # of publishing before the connections are closed, and after


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one transport. Times are milliseconds unless their names say otherwise."""

    transport: Transport
    subscribe: float
    publish_p50: float
    p50: float
    p99: float
    own_cpu_per_message: float
    broker_cpu_per_message: float
    broker_kb_per_instance: float
    storm_seconds_until_well: float
    storm_longest_delay_seconds: float
    storm_missed: int
    storm_gaps: int


class Receiver:
    """One instance's subscription: delays in seconds, numbers heard, gaps."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.heard: set[int] = set()
        self.gaps = 0

    async def handle(self, message: list[float]) -> None:
        number, sent = message
        self.delays.append(time.monotonic() - sent)
        self.heard.add(int(number))

    async def on_gap(self, _: list[str]) -> None:
        self.gaps += 1


class Stage:
    """The instances on one transport."""

    def __init__(self, server: RabbitServer, transport: Transport, instances: int) -> None:
        self._server, self._transport = server, transport
        self.url = server.new_url()
        app = f"load-{new_id()[:8]}"
        settings = Settings(pubsub={"url": self.url, "transport": transport, "publish_timeout": 60})
        self.publisher = Cluster(app, settings=settings)
        self.others = [Cluster(app, settings=settings) for _ in range(instances)]
        self.receivers = [Receiver() for _ in self.others]
        self.published = 0
        self.publish_times: list[float] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        clusters = [self.publisher, *self.others]
        for cluster in clusters:
            await cluster.start()
        try:
            yield
        finally:
            for cluster in clusters:
                await cluster.stop()

    async def subscribe(self) -> float:
        """Return the seconds one subscription takes."""
        begun = time.monotonic()
        for cluster, receiver in zip(self.others, self.receivers, strict=True):
            await cluster.pubsub.subscribe(CHANNEL, receiver.handle, on_gap=receiver.on_gap)
        return (time.monotonic() - begun) / len(self.others)

    async def ask(self, code: str) -> float:
        """Evaluate an expression that has a number, at the broker."""
        return float(await asyncio.to_thread(self._server.ctl, "eval", code))

    async def rest(self) -> float:
        """Return the broker's memory once connections for declarations are closed, bytes."""
        await asyncio.sleep(IDLE_SECONDS + 2)
        return await self.ask(_MEMORY)

    async def publish(self, rate: float, seconds: float) -> None:
        """Publish at a steady rate; none waits for the one before."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for turn in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, begun + turn / rate - time.monotonic()))
                group.create_task(self._publish())

    async def _publish(self) -> None:
        number, sent = self.published, time.monotonic()
        self.published += 1
        await self.publisher.pubsub.publish(CHANNEL, [number, sent])
        self.publish_times.append(time.monotonic() - sent)

    async def heard_all(self) -> None:
        await eventually(lambda: all(len(r.heard) == self.published for r in self.receivers))

    def is_well(self) -> bool:
        return {cluster.health()["status"] for cluster in (self.publisher, *self.others)} == {"ok"}

    async def storm(self, rate: float) -> float:
        """Close every connection while publishing goes on; return the seconds until all is well."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.publish(rate, 2 * _STORM_SECONDS))
            await asyncio.sleep(_STORM_SECONDS)
            closing = group.create_task(asyncio.to_thread(self._server.close_connections, self.url))
            await eventually(lambda: not self.is_well(), interval=0.002)
            begun = time.monotonic()
            await closing
            await eventually(self.is_well, interval=0.002)
            took = time.monotonic() - begun
        end = self.published
        await self._publish()
        await eventually(lambda: all(end in receiver.heard for receiver in self.receivers))
        await asyncio.sleep(_GAP_SECONDS)
        return took


async def measure(
    server: RabbitServer, transport: Transport, instances: int, rate: float, seconds: float
) -> Figures:
    stage = Stage(server, transport, instances)
    async with stage.running():
        await stage.publish(10, 1)
        empty = await stage.rest()
        subscribing = await stage.subscribe()
        full = await stage.rest()
        stage.published = 0
        await stage.publish(rate, 2)  # until everything is warm
        await stage.heard_all()
        for receiver in stage.receivers:
            receiver.delays.clear()
        stage.publish_times.clear()
        own, broker = time.process_time(), await stage.ask(_RUNTIME)
        own = time.process_time()
        await stage.publish(rate, seconds)
        await stage.heard_all()
        own = time.process_time() - own
        broker = await stage.ask(_RUNTIME) - broker
        sent = len(stage.publish_times)
        delays = sorted(delay for receiver in stage.receivers for delay in receiver.delays)
        publishing = sorted(stage.publish_times)
        for receiver in stage.receivers:
            receiver.delays.clear()
        took = await stage.storm(rate)
        return Figures(
            transport=transport,
            subscribe=subscribing * 1000,
            publish_p50=publishing[len(publishing) // 2] * 1000,
            p50=delays[len(delays) // 2] * 1000,
            p99=delays[len(delays) * 99 // 100] * 1000,
            own_cpu_per_message=own / sent * 1000,
            broker_cpu_per_message=broker / sent,
            broker_kb_per_instance=(full - empty) / instances / 1024,
            storm_seconds_until_well=took,
            storm_longest_delay_seconds=max(max(r.delays) for r in stage.receivers),
            storm_missed=sum(stage.published - len(r.heard) for r in stage.receivers),
            storm_gaps=sum(receiver.gaps for receiver in stage.receivers),
        )


def show(figures: list[Figures], version: str) -> None:
    table = Table("", *(found.transport for found in figures), title=f"RabbitMQ {version}")
    rows = [asdict(found) for found in figures]
    for name in list(rows[0])[1:]:
        table.add_row(name.replace("_", " "), *(f"{row[name]:.3g}" for row in rows))
    Console().print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cost and behaviour of the transports.")
    parser.add_argument("--transport", choices=TRANSPORTS, action="append", help="default: all")
    parser.add_argument("--instances", type=int, default=30, help="that subscribe")
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="that are measured")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    logging.getLogger("cluster_kit").setLevel(logging.ERROR)  # of losses and gaps it counts itself
    logging.getLogger("cluster_kit_amqp").setLevel(logging.ERROR)
    try:
        server = start_rabbitmq()
    except NodeUnavailableError as exc:
        sys.exit(str(exc))
    try:
        figures = [
            asyncio.run(measure(server, name, given.instances, given.rate, given.seconds))
            for name in given.transport or TRANSPORTS
        ]
        show(figures, server.version)
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
