"""Scenarios: what becomes of a task whose run did not succeed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from cluster_kit.message import Reject, Retry, Snooze
from cluster_kit.retry import RetryPolicy
from cluster_kit.testing.contracts.event_queue.base import AT_ONCE, CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder, always, answers


@pytest.mark.asyncio
class RetryScenarios(Scenarios):
    """Retries, their bounds, and a handler's own answers."""

    async def test_a_failed_task_runs_again_under_its_id(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(ValueError("first"), KeyError("second")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        published = await cluster.event_queue.publish(
            CHANNEL, {"n": 1}, headers={"tenant": "a"}, max_retries=5
        )

        runs = await recorder.finished(3)
        assert [run.delivery.attempt for run in runs] == [1, 2, 3]
        assert [run.delivery.retried for run in runs] == [0, 1, 2]
        assert {run.delivery.id for run in runs} == {published}
        assert [run.payload for run in runs] == [{"n": 1}] * 3
        assert [dict(run.delivery.headers) for run in runs] == [{"tenant": "a"}] * 3
        assert {run.delivery.max_retries for run in runs} == {5}
        assert len({run.delivery.published_at for run in runs}) == 1
        assert not any(run.delivery.redelivered for run in runs)
        await bench.settled(CHANNEL, cluster)
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0

    @pytest.mark.parametrize("max_retries", [0, 1, 2])
    async def test_max_retries_is_exact(self, bench: Bench, max_retries: int) -> None:
        cluster, recorder = await bench.cluster(), Recorder(always(ValueError("no")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=max_retries)

        [letter] = await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        assert len(recorder.runs) == max_retries + 1
        assert (letter.id, letter.reason, letter.attempts) == (published, "failed", max_retries + 1)

    async def test_the_messages_max_retries_wins_over_the_subscriptions(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(max_retries=9), Recorder(always(ValueError("no")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE, max_retries=2)

        own = await cluster.event_queue.publish(CHANNEL, "own", max_retries=0)
        default = await cluster.event_queue.publish(CHANNEL, "default")

        letters = await bench.dead(cluster, CHANNEL, 2)
        assert {letter.id: letter.attempts for letter in letters} == {own: 1, default: 3}

    async def test_the_settings_bound_retries_when_nobody_else_does(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(max_retries=1), Recorder(always(ValueError("no")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        await cluster.event_queue.publish(CHANNEL, 1)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert letter.attempts == 2

    @pytest.mark.needs("several_instances")
    async def test_another_instance_may_run_the_next_attempt(self, bench: Bench) -> None:
        first, second = await bench.clusters(2)
        failing, working = Recorder(always(ValueError("not here"))), Recorder()
        first.event_queue.subscribe(
            CHANNEL, failing.handle, retry=AT_ONCE, idle=lambda: not failing.runs
        )
        published = await first.event_queue.publish(CHANNEL, 1)
        await failing.finished()

        second.event_queue.subscribe(CHANNEL, working.handle)

        [run] = await working.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 2)
        assert len(failing.runs) == 1

    async def test_retries_wait_as_the_policy_says(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(ValueError("first"), ValueError("second")))
        policy = RetryPolicy(initial_delay=0.3, factor=2, jitter=0)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy)

        await cluster.event_queue.publish(CHANNEL, 1)

        runs = await recorder.finished(3)
        begun = [run.delivery.deadline for run in runs]  # a fixed time after each beginning
        waits = [(later - early).total_seconds() for early, later in pairwise(begun)]
        assert 0.25 < waits[0] < 5
        assert 0.55 < waits[1] < 5

    async def test_a_task_that_waits_for_its_retry_holds_no_slot(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(ValueError("later")))
        for payload in ("fails", "a", "b"):
            await cluster.event_queue.publish(CHANNEL, payload)

        policy = RetryPolicy(initial_delay=1, jitter=0)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy)

        await recorder.finished(4)
        assert recorder.payloads == ["fails", "a", "b", "fails"]

    async def test_retry_counts_and_waits_as_the_handler_asks(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(Retry(delay=0), Retry(delay=0, reason="still no")))
        policy = RetryPolicy(initial_delay=600)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy)

        await cluster.event_queue.publish(CHANNEL, 1, max_retries=1)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2]
        assert (letter.reason, letter.attempts) == ("failed", 2)
        assert "still no" in letter.error_text

    async def test_retry_without_a_delay_follows_the_policy(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder(answers(Retry()))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        await cluster.event_queue.publish(CHANNEL, 1)

        runs = await recorder.finished(2)
        assert [run.delivery.attempt for run in runs] == [1, 2]

    @pytest.mark.parametrize("answer", [float("nan"), float("inf"), -1, 1e9, "5", None])
    async def test_a_policy_that_gives_no_duration_ends_the_task_as_dead(
        self, bench: Bench, answer: float
    ) -> None:
        class Wrong(RetryPolicy):
            def delay(self, failures: int) -> float:  # noqa: ARG002 - whatever it is given
                return answer

        cluster, recorder = await bench.cluster(), Recorder(always(ValueError("no")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=Wrong())
        await cluster.event_queue.publish(CHANNEL, 1)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.reason, letter.attempts) == ("failed", 1)
        assert "the delay of the retry policy" in letter.error_text

    async def test_snooze_uses_no_attempt(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(Snooze(0.2), Snooze(0), ValueError("now it counts")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=1)

        runs = await recorder.finished(4)
        assert [run.delivery.attempt for run in runs] == [1, 1, 1, 2]
        assert {run.delivery.id for run in runs} == {published}
        assert runs[-1].error is None
        await bench.settled(CHANNEL, cluster)
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0

    async def test_a_task_may_snooze_more_often_than_any_limit(self, bench: Bench) -> None:
        cluster = await bench.cluster(crash_limit=2)
        recorder = Recorder(answers(*[Snooze(0) for _ in range(30)]))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await cluster.event_queue.publish(CHANNEL, 1, max_retries=0)

        runs = await recorder.finished(31)
        assert {run.delivery.attempt for run in runs} == {1}
        assert runs[-1].error is None

    async def test_reject_makes_a_dead_letter_at_once(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(always(Reject("no such customer")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=5)

        [letter] = await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        assert (letter.id, letter.reason, letter.attempts) == (published, "rejected", 1)
        assert letter.error_text == "no such customer"
        assert len(recorder.runs) == 1

    @pytest.mark.parametrize(
        ("reason", "text"), [(ValueError("no such customer"), "no such customer"), (404, "404")]
    )
    async def test_a_reject_takes_whatever_has_a_text(
        self,
        bench: Bench,
        reason: Any,  # noqa: ANN401 - not a str on purpose
        text: str,
    ) -> None:
        cluster, recorder = await bench.cluster(), Recorder(always(Reject(reason)))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)

        published = await cluster.event_queue.publish(CHANNEL, 1)

        [letter] = await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        assert (letter.id, letter.reason, letter.error_text) == (published, "rejected", text)
        assert len(recorder.runs) == 1

    async def test_a_retry_takes_whatever_has_a_text(self, bench: Bench) -> None:
        reason: Any = KeyError("customer")
        cluster, recorder = await bench.cluster(), Recorder(always(Retry(delay=0, reason=reason)))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=1)

        [letter] = await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        assert [run.delivery.attempt for run in recorder.runs] == [1, 2]
        assert (letter.id, letter.reason, letter.error_text) == (published, "failed", "'customer'")

    async def test_a_policy_that_fails_makes_a_dead_letter(self, bench: Bench) -> None:
        class Broken(RetryPolicy):
            def delay(self, failures: int) -> float:
                raise LookupError(f"no delay for {failures}")

        cluster, recorder = await bench.cluster(), Recorder(always(ValueError("no")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=Broken())

        published = await cluster.event_queue.publish(CHANNEL, 1, max_retries=5)

        [letter] = await bench.dead(cluster, CHANNEL)
        await bench.settled(CHANNEL, cluster)
        assert (letter.id, letter.reason, letter.error_type) == (published, "failed", "LookupError")
        assert len(recorder.runs) == 1

    async def test_an_error_to_give_up_on_is_not_retried(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(OSError("try again"), FileNotFoundError("gone")))
        policy = RetryPolicy(initial_delay=0, give_up_on=(FileNotFoundError,))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy)

        await cluster.event_queue.publish(CHANNEL, 1, max_retries=5)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.error_type, letter.attempts) == ("FileNotFoundError", 2)
        assert letter.reason == "failed"

    async def test_only_errors_of_retry_on_are_retried(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(ConnectionError("try again"), ValueError("a bug")))
        policy = RetryPolicy(initial_delay=0, retry_on=OSError)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy)

        await cluster.event_queue.publish(CHANNEL, 1, max_retries=5)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.error_type, letter.attempts) == ("ValueError", 2)

    async def test_failures_of_one_task_do_not_hold_up_others(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder(answers(*[ValueError("no")] * 10))
        policy = RetryPolicy(initial_delay=0.1, jitter=0)
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=policy, concurrency=5)

        ids = await cluster.event_queue.publish_many(CHANNEL, range(10), max_retries=20)

        await recorder.finished(20)
        await bench.settled(CHANNEL, cluster)
        succeeded = [run.delivery.id for run in recorder.runs if run.error is None]
        assert sorted(succeeded) == sorted(ids)
