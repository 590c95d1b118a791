"""Publish and subscribe: what an instance hears, and what is promised about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from pydantic import BaseModel

from cluster_kit.cli.demo.journal import require
from cluster_kit.cli.demo.promise import Promise, milliseconds
from cluster_kit.cli.demo.settings import KEPT
from cluster_kit.clock import SystemClock

if TYPE_CHECKING:
    from cluster_kit.cli.demo.journal import Journal, Order, Reporter
    from cluster_kit.cli.demo.stage import Stage
    from cluster_kit.cluster import Cluster

NEWS, PASSING = "news", "passing"
"""Channels whose messages pass an instance by that is away; those of `KEPT` wait for it."""

SYNCED = "prices"
"""Channel of sync messages."""

MESSAGES = 100
"""Messages that all instances are to hear."""

EACH_STEP = 20
"""Messages before a connection is cut, while it is, and at least after it."""

PACE = 0.01
"""Seconds between two messages while a connection is cut."""


class News(BaseModel):
    """A message."""

    number: int
    text: str = ""


class Hearing:
    """What one instance hears. Has no orders.

    Args:
        cluster: of the instance.
        reporter: takes what it hears.
    """

    def __init__(self, cluster: Cluster, reporter: Reporter) -> None:
        self.orders: Mapping[str, Order] = {}
        self._cluster = cluster
        self._reporter = reporter

    async def prepare(self) -> None:
        """Subscribe."""
        for channel in (NEWS, PASSING, KEPT):
            hear, gap = partial(self._heard, channel), partial(self._gap, channel)
            await self._cluster.pubsub.subscribe(channel, hear, on_gap=gap)
        hear = partial(self._heard, SYNCED)
        await self._cluster.sync_messages.subscribe(SYNCED, hear)

    async def _heard(self, channel: str, message: News) -> None:
        self._reporter.note("heard", channel, number=message.number, detail=message.text)

    async def _gap(self, channel: str, _channels: list[str]) -> None:
        self._reporter.note("gap", channel)


async def reaches_everyone(stage: Stage) -> str:
    """Every message is heard by every instance, once and in order."""
    clock, sent = SystemClock(), list[float]()
    for number in range(MESSAGES):
        sent.append(clock.wall())
        await stage.client.pubsub.publish(NEWS, {"number": number})
    await _until_heard(stage, NEWS, MESSAGES - 1)
    for name in stage.names:
        numbers = heard(stage.journal, NEWS, name)
        require(numbers == list(range(MESSAGES)), f"{name} heard {_differing(numbers)}")
    events = [e for e in stage.journal.on("heard", NEWS) if e.instance in stage.names]
    slowest = max(event.at - sent[event.number] for event in events)
    return (
        f"{MESSAGES} messages to {len(stage.names)} instances: {len(events)} heard, in order, "
        f"at most {milliseconds(slowest)} later"
    )


async def gaps_are_told(stage: Stage) -> str:
    """What an instance misses while its connection is cut, it is told of."""
    victim = stage.instances[-1]
    sent = await _publish(stage, 0)
    async with stage.cut_off(victim):
        sent = await _publish(stage, sent)
    sent = await _publish_until_heard(stage, sent)
    found = [await _missed(stage, channel, victim.name, sent) for channel in (KEPT, PASSING)]
    for name in set(stage.names) - {victim.name}:
        rest = len(heard(stage.journal, KEPT, name)) + len(heard(stage.journal, PASSING, name))
        require(rest == 2 * sent, f"{name}, which was not cut off, heard {rest} of {2 * sent}")
    return f"{victim.name} cut off for {EACH_STEP} of {sent} messages; {'; '.join(found)}"


BROADCASTS = (
    Promise("a message reaches every instance, in order", reaches_everyone),
    Promise("what a cut connection costs is told", gaps_are_told),
)


def heard(journal: Journal, channel: str, instance: str) -> list[int]:
    """Return the numbers of the messages that an instance heard, in its order."""
    return [event.number for event in journal.on("heard", channel, instance)]


async def _missed(stage: Stage, channel: str, name: str, sent: int) -> str:
    """Return how many messages an instance missed, and check that it was told."""
    missed = sent - len(set(heard(stage.journal, channel, name)))

    def told() -> bool:
        return bool(stage.journal.on("gap", channel, name))

    if missed:
        await stage.journal.until(told, f"{name} missed {missed} messages and was not told")
    transport = "sticky" if channel == KEPT else "ephemeral"
    return f"{transport}: {missed} missed{', told of a gap' if told() else ''}"


async def _publish(stage: Stage, first: int) -> int:
    for number in range(first, first + EACH_STEP):
        for channel in (KEPT, PASSING):
            await stage.client.pubsub.publish(channel, {"number": number})
        await asyncio.sleep(PACE)
    return first + EACH_STEP


async def _publish_until_heard(stage: Stage, first: int) -> int:
    """Go on until the last message is heard by all on both channels; return the next number."""
    number = await _publish(stage, first)
    journal = stage.journal

    def back() -> bool:
        return all(
            any(n >= first for n in heard(journal, channel, name))
            for channel in (KEPT, PASSING)
            for name in stage.names
        )

    deadline = SystemClock().monotonic() + journal.patience
    while not back() and SystemClock().monotonic() < deadline:
        number = await _publish(stage, number)
    for channel in (KEPT, PASSING):
        await _until_heard(stage, channel, number - 1)
    return number


async def _until_heard(stage: Stage, channel: str, last: int) -> None:
    await stage.journal.until(
        lambda: all(last in heard(stage.journal, channel, name) for name in stage.names),
        f"not every instance heard message {last} of {channel!r}",
    )


def _differing(numbers: list[int]) -> str:
    wrong = next((at for at, number in enumerate(numbers) if at != number), len(numbers))
    return f"{len(numbers)} messages; the first that is wrong is number {wrong}"
