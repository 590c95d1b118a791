"""Scenarios: how handlers are called, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from cluster_kit.testing.contracts.pubsub.base import CHANNEL, Scenarios
from cluster_kit.testing.hearer import Hearer, holds
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.broadcast import Event
    from cluster_kit.testing.contracts.pubsub.bench import Bench


class _Order(BaseModel):
    number: int
    items: list[str] = []


def _raise(error: BaseException) -> None:
    raise error


def _cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.asyncio
class HandlerScenarios(Scenarios):
    """One message at a time; whoever fails or dawdles harms nobody else."""

    async def test_a_subscription_handles_one_message_at_a_time(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async def work(_message: object, _event: Event) -> None:
            await asyncio.sleep(0.005)

        hearer = Hearer(work)
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(cluster.pubsub.publish(CHANNEL, number, skip_self=False))

        assert await hearer.hears(20) == list(range(20))
        assert hearer.peak == 1

    async def test_a_slow_handler_holds_up_no_other(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        slow, quick = Hearer(holds(gate)), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, slow.handle)
        await cluster.pubsub.subscribe(CHANNEL, quick.handle)

        for number in range(20):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)

        assert await quick.hears(20) == list(range(20))
        assert slow.messages == [0]
        gate.set()
        assert await slow.hears(20) == list(range(20))

    @pytest.mark.parametrize(
        "failing",
        [
            lambda: _raise(LookupError("no such order")),
            lambda: _raise(SystemExit(3)),
            lambda: _raise(GeneratorExit()),
            lambda: _raise(asyncio.CancelledError()),
            _cancel_itself,
        ],
        ids=["error", "exit", "generator exit", "cancelled error", "cancelled task"],
    )
    async def test_a_failing_handler_is_logged_and_hears_the_next_message(
        self, bench: Bench, failing: Callable[[], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster, other = await bench.cluster(), Hearer()

        async def fail_first(message: object, _event: Event) -> None:
            if message == 0:
                failing()
                await asyncio.sleep(0)

        hearer = Hearer(fail_first)
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)
        await cluster.pubsub.subscribe(CHANNEL, other.handle)
        first = await cluster.pubsub.publish(CHANNEL, 0, skip_self=False)
        for number in (1, 2):
            await cluster.pubsub.publish(CHANNEL, number, skip_self=False)

        assert await hearer.hears(3) == [0, 1, 2]
        assert await other.hears(3) == [0, 1, 2]
        await eventually(lambda: cluster.pubsub.stats()[CHANNEL].delivered == 5)
        assert cluster.pubsub.stats()[CHANNEL].failed == 1
        assert [fields["id"] for fields in bench.reports("broadcast.failed")] == [first]
        logged = [record.getMessage() for record in caplog.records]
        assert any(CHANNEL in text and first in text for text in logged)

    async def test_a_sync_handler_runs_in_a_thread(self, bench: Bench) -> None:
        cluster, seen = await bench.cluster(), list[tuple[object, int, threading.Thread]]()

        def handle(message: object, event: Event) -> None:
            seen.append((message, event.seq, threading.current_thread()))

        await cluster.pubsub.subscribe(CHANNEL, handle)
        await cluster.pubsub.publish(CHANNEL, "x", skip_self=False)

        await eventually(lambda: seen)
        assert [(message, seq) for message, seq, _ in seen] == [("x", 1)]
        assert seen[0][2] is not threading.current_thread()

    async def test_a_handler_may_take_the_message_alone(self, bench: Bench) -> None:
        cluster, seen = await bench.cluster(), list[object]()

        async def handle(message: object) -> None:
            seen.append(message)

        await cluster.pubsub.subscribe(CHANNEL, handle)
        await cluster.pubsub.publish(CHANNEL, None, skip_self=False)

        await eventually(lambda: seen)
        assert seen == [None]

    async def test_an_annotated_message_is_what_the_handler_gets(self, bench: Bench) -> None:
        cluster, seen = await bench.cluster(), list[_Order]()

        async def handle(order: _Order) -> None:
            seen.append(order)

        await cluster.pubsub.subscribe(CHANNEL, handle)
        await cluster.pubsub.publish(CHANNEL, _Order(number=1), skip_self=False)
        await cluster.pubsub.publish(CHANNEL, {"number": "2", "items": ["tea"]}, skip_self=False)

        await eventually(lambda: len(seen) == 2)
        assert seen == [_Order(number=1), _Order(number=2, items=["tea"])]

    async def test_a_message_against_the_annotation_is_counted_and_passed_over(
        self, bench: Bench
    ) -> None:
        cluster, seen = await bench.cluster(), list[_Order]()

        async def handle(order: _Order) -> None:
            seen.append(order)

        await cluster.pubsub.subscribe(CHANNEL, handle)
        bad = await cluster.pubsub.publish(CHANNEL, {"number": "many"}, skip_self=False)
        await cluster.pubsub.publish(CHANNEL, {"number": 3}, skip_self=False)

        await eventually(lambda: seen)
        assert seen == [_Order(number=3)]
        [failed] = bench.reports("broadcast.failed")
        assert (failed["id"], failed["error"]) == (bad, "DecodeError")

    async def test_handlers_do_not_share_what_they_are_given(self, bench: Bench) -> None:
        cluster, seen = await bench.cluster(), list[object]()

        async def handle(message: list[int]) -> None:
            message.append(1)
            seen.append(message)

        async def other(message: list[int]) -> None:
            message.append(2)
            seen.append(message)

        await cluster.pubsub.subscribe(CHANNEL, handle)
        await cluster.pubsub.subscribe(CHANNEL, other)
        await cluster.pubsub.publish(CHANNEL, [0], skip_self=False)

        await eventually(lambda: len(seen) == 2)
        assert sorted(map(str, seen)) == ["[0, 1]", "[0, 2]"]

    @pytest.mark.needs("foreign_messages")
    async def test_a_foreign_message_is_heard_by_all(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        hearers = [Hearer() for _ in clusters]
        for cluster, hearer in zip(clusters, hearers, strict=True):
            await cluster.pubsub.subscribe(CHANNEL, hearer.handle, on_gap=hearer.on_gap)

        for _ in range(2):
            await bench.environment.put(bench.app, CHANNEL, b'{"id": 17}')

        for hearer in hearers:
            assert await hearer.hears(2) == [{"id": 17}] * 2
            event = hearer.heard[0].event
            assert (event.origin, event.seq, event.published_at) == ("", 0, None)
            assert bench.reports("broadcast.gap") == []

    @pytest.mark.needs("foreign_messages")
    async def test_a_body_that_is_no_json_is_counted_and_passed_over(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)

        await bench.environment.put(bench.app, CHANNEL, b"\xff not json")
        await cluster.pubsub.publish(CHANNEL, "end", skip_self=False)

        assert await hearer.hears() == ["end"]
        assert cluster.pubsub.stats()[CHANNEL].failed == 1
