"""One broadcast, eight subscribers in one process: cluster-kit, aio-pika and FastStream.

``python benchmarks/fan_out.py``

Each contender runs in a process of its own, publishes 5,000 messages with many under way, and has
eight subscribers there that all get each of them. aio-pika and FastStream do it as their documents
have it: a queue for each subscriber, bound to one exchange. Measured is the processor time of that
process, publishing included, and the deliveries in a second. Then cluster-kit publishes 200 a
second from one process to another: the delay from publish to handler.

Without ``--url`` it uses a RabbitMQ as the tests do. The exit code is 1 when a delivery is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial

from rich.console import Console
from rich.table import Table

from benchmarks.run import rabbitmq
from cluster_kit.supervisor import Supervisor

SUBSCRIBERS = 8
LANES = 256
"""Publishes under way."""
PATIENCE = 60.0
"""Seconds for all deliveries of one round."""
RATE = 200.0
"""Broadcasts a second, for the delay."""

Publish = Callable[[object], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one round: processor time and time by the clock, seconds; deliveries that are missing."""

    cpu: float
    seconds: float
    missing: int


class Count:
    """Counts deliveries; `wait` returns when all are there."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self._all = asyncio.Event()

    def one(self) -> None:
        """Note a delivery."""
        self._missing -= 1
        if self._missing == 0:
            self._all.set()

    async def wait(self) -> int:
        """Return how many are missing when time is up."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._all.wait()
        except TimeoutError:
            pass
        return self._missing


async def cluster_kit(
    url: str, app: str, one: Callable[[], None], stack: AsyncExitStack
) -> Publish:
    """Eight subscriptions of an instance on one channel."""
    from cluster_kit import Cluster, Settings

    settings = Settings(event_queue={"url": "memory://"}, pubsub={"url": url})
    cluster = await stack.enter_async_context(Cluster(app, settings=settings))

    def subscriber() -> Callable[[dict[str, int]], Awaitable[None]]:
        async def handle(price: dict[str, int]) -> None:
            assert "price" in price
            one()

        return handle

    for _ in range(SUBSCRIBERS):
        await cluster.pubsub.subscribe("prices", subscriber())
    return lambda message: cluster.pubsub.publish("prices", message, skip_self=False)


async def aio_pika(url: str, app: str, one: Callable[[], None], stack: AsyncExitStack) -> Publish:
    """Eight exclusive queues on one exchange."""
    import aio_pika as driver

    connection = await stack.enter_async_context(await driver.connect(url))
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=LANES)
    exchange = await channel.declare_exchange(app, "topic", durable=True)

    async def handle(message: driver.abc.AbstractIncomingMessage) -> None:
        json.loads(message.body)
        await message.ack()
        one()

    for _ in range(SUBSCRIBERS):
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "prices")
        await queue.consume(handle)

    async def publish(message: object) -> None:
        body = json.dumps(message, separators=(",", ":")).encode()
        await exchange.publish(
            driver.Message(body, content_type="application/json"), "prices", mandatory=True
        )

    return publish


async def faststream(url: str, app: str, one: Callable[[], None], stack: AsyncExitStack) -> Publish:
    """Eight subscribers, each with an exclusive queue of its own."""
    from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

    broker = RabbitBroker(url, logger=None, default_channel=Channel(prefetch_count=LANES))
    exchange = RabbitExchange(app, type=ExchangeType.TOPIC, durable=True)

    def subscriber() -> Callable[[dict[str, int]], Awaitable[None]]:
        async def handle(price: dict[str, int]) -> None:
            assert "price" in price
            one()

        return handle

    for number in range(SUBSCRIBERS):
        queue = RabbitQueue(f"{app}.{number}", exclusive=True, routing_key="prices")
        broker.subscriber(queue, exchange)(subscriber())
    await stack.enter_async_context(broker)
    await broker.start()
    return lambda message: broker.publish(message, "prices", exchange=exchange)


CONTENDERS = {"cluster_kit": cluster_kit, "aio_pika": aio_pika, "faststream": faststream}


async def fan_out(contender: str, url: str, messages: int) -> Figures:
    """Measure one contender in this process."""
    async with AsyncExitStack() as stack:
        count = Count(messages * SUBSCRIBERS)
        app = f"fan-{os.getpid()}"
        publish = await CONTENDERS[contender](url, app, count.one, stack)
        cpu, began = time.process_time(), time.perf_counter()
        calls = [partial(publish, {"price": number}) for number in range(messages)]
        await Supervisor().run_all(calls, limit=LANES)
        missing = await count.wait()
        return Figures(time.process_time() - cpu, time.perf_counter() - began, missing)


async def delay(url: str, messages: int) -> dict[str, float]:
    """Return the median and the 99th percentile of the delay at 200 a second, ms."""
    from cluster_kit import Cluster, Settings

    delays: list[float] = []
    count = Count(messages)
    settings = Settings(event_queue={"url": "memory://"}, pubsub={"url": url})
    app = f"fan-{os.getpid()}"

    async def handle(sent: float) -> None:
        delays.append((time.perf_counter() - sent) * 1e3)
        count.one()

    async with Cluster(app, settings=settings) as hears, Cluster(app, settings=settings) as sends:
        await hears.pubsub.subscribe("prices", handle)
        tasks, began = Supervisor(), time.perf_counter()
        for number in range(messages):
            await asyncio.sleep(began + number / RATE - time.perf_counter())
            publishing = sends.pubsub.publish("prices", time.perf_counter())
            tasks.spawn(publishing, name=f"publish {number}")
        await count.wait()
    cuts = statistics.quantiles(delays[messages // 5 :], n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


def in_a_process(*arguments: str) -> dict[str, float]:
    """Run this program with `arguments` and return the JSON it prints."""
    command = [sys.executable, "-m", "benchmarks.fan_out", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def installed() -> list[str]:
    """Return the contenders whose libraries are here."""
    from importlib.util import find_spec

    return [name for name in CONTENDERS if find_spec(name) is not None]


def compare(url: str, messages: int, rounds: int, paced: int) -> int:
    """Measure all, round by round, print a table, and return the exit code."""
    names = installed()
    samples: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            told = in_a_process("--url", url, "--messages", str(messages), "--only", name)
            samples[name].append(Figures(told["cpu"], told["seconds"], int(told["missing"])))
    deliveries = messages * SUBSCRIBERS
    table = Table("", *names, title=f"{messages} messages to {SUBSCRIBERS} subscribers")
    cpu = {name: statistics.median(f.cpu for f in found) for name, found in samples.items()}
    took = {name: statistics.median(f.seconds for f in found) for name, found in samples.items()}
    table.add_row("CPU of a delivery, us", *(f"{cpu[n] / deliveries * 1e6:.1f}" for n in names))
    table.add_row("deliveries/s", *(f"{deliveries / took[n]:,.0f}" for n in names))
    table.add_row("CPU, of cluster-kit's", *(f"{cpu[n] / cpu['cluster_kit']:.1f}" for n in names))
    table.add_row(
        "time, of cluster-kit's", *(f"{took[n] / took['cluster_kit']:.1f}" for n in names)
    )
    console = Console()
    console.print(table)
    figures = in_a_process("--url", url, "--messages", str(paced), "--only", "delay")
    console.print(f"at {RATE:g}/s: p50 {figures['p50']:.1f} ms, p99 {figures['p99']:.1f} ms")
    missing = sum(found.missing for rows in samples.values() for found in rows)
    return 1 if missing else 0


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description="Broadcasts to many subscribers of a process.")
    parser.add_argument("--url", help="a RabbitMQ; by default the one the tests would use")
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--paced", type=int, default=2_000, help="messages at 200/s")
    parser.add_argument("--only", choices=[*CONTENDERS, "delay"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only == "delay":
        print(json.dumps(asyncio.run(delay(given.url, given.messages))))
        return 0
    if given.only:
        print(json.dumps(asdict(asyncio.run(fan_out(given.only, given.url, given.messages)))))
        return 0
    with rabbitmq(given.url) as url:
        return compare(url, given.messages, given.rounds, given.paced)


if __name__ == "__main__":
    sys.exit(main())
