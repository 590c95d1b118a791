"""Scenarios: what a handler may be, and what it may do."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import pytest
from pydantic import BaseModel

from cluster_kit.message import Delivery
from cluster_kit.testing.contracts.event_queue.base import AT_ONCE, CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench, happens_within
from cluster_kit.testing.recorder import Recorder, answers
from cluster_kit.testing.waiting import eventually


class _Mail(BaseModel):
    to: str
    copies: int = 1


@dataclass
class _Order:
    number: int


@pytest.mark.asyncio
class HandlerScenarios(Scenarios):
    """Async and sync, annotated or not, well-behaved or not."""

    async def test_a_sync_handler_runs_in_a_thread_and_does_not_block_the_loop(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        release = threading.Event()
        threads: list[int] = []

        def handle(_payload: object) -> None:
            threads.append(threading.get_ident())
            release.wait(15)

        cluster.event_queue.subscribe(CHANNEL, handle, concurrency=2)
        await cluster.event_queue.publish_many(CHANNEL, [1, 2])
        await eventually(lambda: len(threads) == 2)  # both at once, and the loop still turns
        assert threading.get_ident() not in threads

        release.set()
        await bench.settled(CHANNEL, cluster)
        assert cluster.event_queue.stats()[CHANNEL].done == 2

    async def test_a_sync_handler_that_raises_is_retried(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        attempts: list[int] = []

        def handle(_payload: object, delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            if delivery.attempt < 3:
                raise ValueError("not yet")

        cluster.event_queue.subscribe(CHANNEL, handle, retry=AT_ONCE)
        await cluster.event_queue.publish(CHANNEL, 1)

        await eventually(lambda: len(attempts) == 3)
        assert attempts == [1, 2, 3]

    async def test_a_thread_sees_the_signal_of_its_timeout(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        seen: list[tuple[bool, str]] = []

        def handle(_payload: object, delivery: Delivery) -> None:
            aborted = delivery.signal.wait_in_thread(15)
            seen.append((aborted, delivery.signal.reason))

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, 1, timeout=0.3, max_retries=0)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert seen == [(True, "timeout")]
        assert letter.reason == "failed"

    async def test_a_model_annotation_is_what_the_handler_gets(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        seen: list[object] = []

        async def handle(mail: _Mail) -> None:
            seen.append(mail)

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, {"to": "ann", "copies": 2})
        await cluster.event_queue.publish(CHANNEL, _Mail(to="bob"))

        await eventually(lambda: len(seen) == 2)
        assert seen == [_Mail(to="ann", copies=2), _Mail(to="bob")]

    async def test_a_dataclass_annotation_is_what_the_handler_gets(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        seen: list[object] = []

        def handle(order: _Order, _delivery: Delivery) -> None:
            seen.append(order)

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, {"number": 17})

        await eventually(lambda: seen)
        assert seen == [_Order(17)]

    async def test_a_payload_against_the_annotation_is_dead_without_a_run(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        seen: list[object] = []

        async def handle(mail: _Mail) -> None:
            seen.append(mail)

        cluster.event_queue.subscribe(CHANNEL, handle)
        bad = await cluster.event_queue.publish(CHANNEL, {"to": "ann", "copies": "many"})
        await cluster.event_queue.publish(CHANNEL, {"to": "bob"})

        [letter] = await bench.dead(cluster, CHANNEL)
        await eventually(lambda: seen)
        assert seen == [_Mail(to="bob")]
        assert (letter.id, letter.reason, letter.attempts) == (bad, "undecodable", 0)
        assert letter.payload == {"to": "ann", "copies": "many"}
        assert "copies" in letter.error_text

    async def test_a_handler_that_exits_does_not_take_the_worker_with_it(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(SystemExit(3)))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, max_retries=0)

        bad = await cluster.event_queue.publish(CHANNEL, "exit")
        good = await cluster.event_queue.publish(CHANNEL, "go on")

        await recorder.finished(2)
        [letter] = await bench.dead(cluster, CHANNEL)
        assert recorder.ids == [bad, good]
        assert (letter.id, letter.reason, letter.error_type) == (bad, "failed", "SystemExit")

    async def test_a_handler_cancelled_from_within_has_failed(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(asyncio.CancelledError()))
        policy = AT_ONCE
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy, max_retries=0)

        bad = await cluster.event_queue.publish(CHANNEL, "cancelled")
        good = await cluster.event_queue.publish(CHANNEL, "go on")

        await recorder.finished(2)
        [letter] = await bench.dead(cluster, CHANNEL)
        assert recorder.ids == [bad, good]
        assert letter.id == bad

    async def test_an_error_whose_text_fails_is_still_recorded(self, bench: Bench) -> None:
        class UnspeakableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        cluster = await bench.cluster()
        recorder = Recorder(answers(UnspeakableError()))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=0)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert letter.id == published
        assert "UnspeakableError" in letter.error_type

    async def test_a_handler_may_wait_for_its_signal(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        heard = asyncio.Event()
        reasons: list[str] = []

        async def handle(_payload: object, delivery: Delivery) -> None:
            try:
                await delivery.signal.wait()
            finally:
                reasons.append(delivery.signal.reason)
                heard.set()

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, 1, timeout=0.3, max_retries=0)

        assert await happens_within(15, heard)
        assert reasons == ["timeout"]
