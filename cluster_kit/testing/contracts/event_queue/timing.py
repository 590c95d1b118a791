"""Scenarios: timeouts, delays and ttl. Scaled down: the library has no shortest duration."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.message import Delivery
from cluster_kit.retry import RetryPolicy
from cluster_kit.testing.contracts.event_queue.base import AT_ONCE, CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder, answers, until


async def _sleep_long(_payload: object, _delivery: Delivery) -> None:
    await asyncio.sleep(60)


@pytest.mark.asyncio
class TimingScenarios(Scenarios):
    """When a run is cut short, and when it begins."""

    async def test_a_run_over_its_timeout_is_cancelled_and_has_failed(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder(_sleep_long)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        await cluster.event_queue.publish(CHANNEL, 1, timeout=0.3, max_retries=1)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2]
        assert all(isinstance(run.error, asyncio.CancelledError) for run in recorder.runs)
        assert all(run.delivery.signal.aborted for run in recorder.runs)
        assert {run.delivery.signal.reason for run in recorder.runs} == {"timeout"}
        assert (letter.reason, letter.attempts) == ("failed", 2)
        assert "HandlerTimeout" in letter.error_type

    async def test_the_messages_timeout_wins_over_the_subscriptions(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(_sleep_long)
        cluster.event_queue.subscribe(
            CHANNEL, recorder.handle, timeout=timedelta(seconds=50), max_retries=0
        )

        await cluster.event_queue.publish(CHANNEL, 1, timeout=timedelta(milliseconds=200))

        await bench.dead(cluster, CHANNEL)

    async def test_the_subscriptions_timeout_wins_over_the_settings(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(timeout=50), Recorder(_sleep_long)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, timeout=0.2, max_retries=0)

        await cluster.event_queue.publish(CHANNEL, 1)

        await bench.dead(cluster, CHANNEL)

    async def test_a_timeout_that_is_caught_is_still_a_failure(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async def catch(_payload: object, delivery: Delivery) -> None:
            if delivery.attempt == 1:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    return

        recorder = Recorder(catch)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        await cluster.event_queue.publish(CHANNEL, 1, timeout=0.3)

        runs = await recorder.finished(2)
        assert [run.delivery.attempt for run in runs] == [1, 2]

    async def test_a_run_that_ignores_its_cancellation_keeps_its_slot(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(cancel_grace=0.2), asyncio.Event()

        async def ignore(payload: object, delivery: Delivery) -> None:
            while payload == "stuck" and delivery.attempt == 1 and not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    continue

        recorder = Recorder(ignore)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)
        stuck = await cluster.event_queue.publish(CHANNEL, "stuck", timeout=0.5, max_retries=5)
        await recorder.started()
        await cluster.event_queue.publish(CHANNEL, "next")

        await bench.reported("task.stuck", channel=CHANNEL, id=stuck, attempt=1)
        # Long enough for a second run to begin, if the slot or the id were free.
        await asyncio.sleep(0.5)
        assert recorder.payloads == ["stuck"]

        gate.set()
        await recorder.finished(3)
        await bench.settled(CHANNEL, cluster)
        assert recorder.peak == 1
        assert sorted(recorder.payloads, key=str) == ["next", "stuck", "stuck"]
        attempts = [run.delivery.attempt for run in recorder.runs if run.payload == "stuck"]
        assert attempts == [1, 2]

    @pytest.mark.needs("delays")
    async def test_a_short_delay_overtakes_a_long_one(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=5)
        await self._warm(cluster)

        for delay in (1.8, 0.9, 0.2):
            await cluster.event_queue.publish(CHANNEL, delay, delay=delay)
        await cluster.event_queue.publish(CHANNEL, 0)

        runs = await recorder.finished(4)
        assert recorder.payloads == [0, 0.2, 0.9, 1.8]
        for run in runs:
            delivery = run.delivery
            assert delivery.published_at is not None
            begun = delivery.deadline - timedelta(seconds=60)  # the default timeout
            late = (begun - delivery.published_at).total_seconds() - float(str(run.payload))
            assert -0.05 < late < 5
        assert {run.delivery.attempt for run in runs} == {1}

    @pytest.mark.needs("delays", "several_instances")
    async def test_a_delayed_task_waits_in_the_broker(self, bench: Bench) -> None:
        publisher, other = await bench.clusters(2)
        never, recorder = Recorder(), Recorder()
        publisher.event_queue.subscribe(CHANNEL, never.handle)
        published = await publisher.event_queue.publish(CHANNEL, 1, delay=0.8)
        await publisher.stop()

        other.event_queue.subscribe(CHANNEL, recorder.handle)

        [run] = await recorder.finished()
        assert (run.delivery.id, run.delivery.redelivered) == (published, False)
        assert never.runs == []

    @pytest.mark.needs("delays", "several_instances")
    async def test_a_retry_waits_in_the_broker(self, bench: Bench) -> None:
        first, other = await bench.clusters(2)
        failing, working = Recorder(answers(ValueError("later"))), Recorder()
        policy = RetryPolicy(initial_delay=0.8, jitter=0)
        first.event_queue.subscribe(CHANNEL, failing.handle, retry=policy)
        published = await first.event_queue.publish(CHANNEL, 1)
        await bench.reported("task.retried", id=published)
        await first.stop()

        other.event_queue.subscribe(CHANNEL, working.handle)

        [run] = await working.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 2)

    @pytest.mark.needs("delays")
    async def test_delayed_tasks_go_to_their_own_channels(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorders = {channel: Recorder() for channel in ("send", "mails.send", "x.mails.send")}
        for channel, recorder in recorders.items():
            cluster.event_queue.subscribe(channel, recorder.handle)

        for channel in recorders:
            await cluster.event_queue.publish(channel, channel, delay=0.3)

        for channel, recorder in recorders.items():
            await recorder.finished()
            assert recorder.payloads == [channel]

    @pytest.mark.needs("delays")
    async def test_many_delayed_tasks_all_arrive_once(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=0)

        ids: list[str] = []
        for n in range(5):
            ids += await cluster.event_queue.publish_many(CHANNEL, range(20), delay=0.1 + n * 0.13)

        await recorder.finished(100)
        await bench.settled(CHANNEL, cluster)
        assert sorted(recorder.ids) == sorted(ids)

    @pytest.mark.needs("ttl")
    async def test_a_task_nobody_takes_expires_in_the_queue(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        expired = await cluster.event_queue.publish(
            CHANNEL, {"n": 1}, ttl=0.3, headers={"tenant": "a"}
        )
        kept = await cluster.event_queue.publish(CHANNEL, {"n": 2}, ttl=600)

        [letter] = await bench.dead(cluster, CHANNEL)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await recorder.finished()
        assert recorder.ids == [kept]
        assert (letter.id, letter.reason, letter.attempts) == (expired, "expired", 0)
        assert letter.error_text == ""
        assert letter.payload == {"n": 1}
        assert dict(letter.headers) == {"tenant": "a"}

    async def test_an_expired_task_is_never_run(self, bench: Bench) -> None:
        cluster, gate = await bench.cluster(), asyncio.Event()
        recorder = Recorder(until(gate))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        long = await cluster.event_queue.publish(CHANNEL, "long")
        await recorder.started()
        late = await cluster.event_queue.publish(CHANNEL, "late", ttl=0.3)
        await cluster.event_queue.publish(CHANNEL, "last")
        await asyncio.sleep(0.6)  # the ttl must be over before the slot is free

        gate.set()

        await recorder.finished(2)
        [letter] = await bench.dead(cluster, CHANNEL)
        assert recorder.payloads == ["long", "last"]
        assert recorder.ids[0] == long
        assert (letter.id, letter.reason) == (late, "expired")

    async def test_ttl_does_not_end_a_run(self, bench: Bench) -> None:
        cluster = await bench.cluster()

        async def outlast(_payload: object, _delivery: Delivery) -> None:
            await asyncio.sleep(1.2)

        recorder = Recorder(outlast)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await bench.consuming(cluster, CHANNEL)
        await cluster.event_queue.publish(CHANNEL, 1, ttl=0.8)

        [run] = await recorder.finished()
        assert run.error is None
        await bench.settled(CHANNEL, cluster)
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0

    @pytest.mark.needs("delays")
    async def test_ttl_goes_on_through_retries(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(*[ValueError("no")] * 50))
        policy = RetryPolicy(initial_delay=0.4, factor=1, jitter=0)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy)
        await self._warm(cluster)
        await bench.consuming(cluster, CHANNEL)

        published = await cluster.event_queue.publish(CHANNEL, 1, ttl=1.5, max_retries=50)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.id, letter.reason) == (published, "expired")
        assert 1 <= len(recorder.runs) <= 5
        assert letter.attempts == len(recorder.runs)

    @pytest.mark.needs("delays")
    async def test_ttl_begins_when_the_delay_ends(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await self._warm(cluster)
        await bench.consuming(cluster, CHANNEL)

        await cluster.event_queue.publish(CHANNEL, 1, delay=1.2, ttl=1.0)

        await recorder.finished()
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0

    @pytest.mark.needs("delays", "ttl_after_delay")
    async def test_a_delayed_task_nobody_takes_expires_in_the_queue(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        published = await cluster.event_queue.publish(CHANNEL, 1, delay=0.2, ttl=0.2)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.id, letter.reason, letter.attempts) == (published, "expired", 0)

    @pytest.mark.needs("delays")
    async def test_a_delayed_task_that_is_met_too_late_is_never_run(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        await self._warm(cluster)
        late = await cluster.event_queue.publish(CHANNEL, "late", delay=0.2, ttl=0.2)
        await cluster.event_queue.publish(CHANNEL, "last", delay=1.2)

        await asyncio.sleep(1.0)  # the ttl must be over before there is a consumer
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await recorder.finished()
        [letter] = await bench.dead(cluster, CHANNEL)
        assert recorder.payloads == ["last"]
        assert (letter.id, letter.reason, letter.attempts) == (late, "expired", 0)

    @staticmethod
    async def _warm(cluster: Cluster) -> None:
        """Have an adapter make what it makes at its first delay, whatever time that takes."""
        await cluster.event_queue.publish("warm", 1, delay=0.05)
