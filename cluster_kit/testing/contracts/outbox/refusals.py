"""Scenarios: messages that cannot be sent, and a broker that is away."""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.ext.asyncio import AsyncSession

from cluster_kit.clock import SystemClock
from cluster_kit.errors import (
    ConnectionLost,
    MessageTooLargeError,
    PublishBlocked,
    PublishRefused,
    PublishUnconfirmed,
)
from cluster_kit.retry import RetryPolicy
from cluster_kit.testing.contracts.outbox.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.outbox.relaying import status
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable

    from cluster_kit.testing.contracts.outbox.bench import Bench, Instance

OTHER = "orders.paid"


async def subscribed(bench: Bench, recorder: Recorder, **options: Any) -> Instance:  # noqa: ANN401
    """Return an instance on which `recorder` handles both channels."""
    instance = await bench.instance(**options)
    for channel in (CHANNEL, OTHER):
        instance.cluster.event_queue.subscribe(channel, recorder.handle)
    return instance


async def publish(bench: Bench, instance: Instance, *messages: tuple[str, object]) -> list[str]:
    """Store messages, each a channel and a payload, in one transaction; return their ids."""
    async with AsyncSession(bench.engine) as session, session.begin():
        return [
            await instance.outbox.publish(session, channel, payload)
            for channel, payload in messages
        ]


def execute(statement: Executable, connection: Connection) -> None:
    """Execute a statement: what `Bench.run` takes, once the statement is given."""
    connection.execute(statement)


def _name(error: Exception) -> str:
    return type(error).__name__


@pytest.mark.asyncio
class RefusalScenarios(Scenarios):
    """What cannot be sent waits, or is kept as failed; it keeps nobody else waiting."""

    async def test_what_is_refused_holds_up_its_own_key_alone(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await subscribed(bench, recorder, max_retries=1000)
        instance.faults.of[CHANNEL] = PublishRefused("full")

        await publish(
            bench, instance, *((channel, n) for n in range(3) for channel in (CHANNEL, OTHER))
        )
        await recorder.finished(3)
        assert [run.delivery.channel for run in recorder.runs] == [OTHER] * 3
        await eventually(lambda: len(bench.reports("outbox.retried")) >= 2)
        instance.faults.of.clear()

        await recorder.finished(6)
        assert recorder.payloads == [0, 1, 2, 0, 1, 2]
        first = bench.reports("outbox.retried")[0]
        assert (first["channel"], first["attempt"]) == (CHANNEL, 1)
        assert "PublishRefused: full" in str(first["error"])

    async def test_where_a_look_takes_long_looks_are_rare(self, bench: Bench) -> None:
        clock, looks = SystemClock(), list[float]()

        def slow(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "lane_0" in statement:
                looks.append(clock.monotonic())
                time.sleep(0.1)  # as if many messages waited

        event.listen(bench.engine.sync_engine, "before_cursor_execute", slow)
        await bench.instance(poll_interval=0.01, listen=False)

        await eventually(lambda: len(looks) >= 4, timeout=60)

        assert min(after - before for before, after in pairwise(looks)) > 0.5

    async def test_what_stays_refused_is_kept_as_failed_and_can_be_replayed(
        self, bench: Bench
    ) -> None:
        recorder = Recorder()
        instance = await subscribed(bench, recorder, max_retries=2)
        instance.faults.of[CHANNEL] = PublishRefused("full")

        ids = await publish(bench, instance, (CHANNEL, "first"))
        [failed] = await eventually(instance.outbox.failed)
        assert (failed.id, failed.channel, failed.attempts) == (ids[0], CHANNEL, 3)
        assert (failed.error, failed.body) == ("PublishRefused: full", b'"first"')
        assert instance.faults.tried == ids * 3
        await eventually(lambda: status(instance) == ("degraded", "1 messages are given up"))

        instance.faults.of.clear()
        await publish(bench, instance, (CHANNEL, "second"))
        await recorder.finished(1)
        assert await instance.outbox.replay([]) == 0
        assert await instance.outbox.replay(ids) == 1

        await recorder.finished(2)
        assert recorder.payloads == ["second", "first"]
        assert recorder.ids[1] == ids[0]
        assert await instance.outbox.failed() == []

    async def test_what_can_never_be_sent_is_given_up_at_once(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await subscribed(bench, recorder, max_retries=1000)
        instance.faults.of[CHANNEL] = MessageTooLargeError("the payload", 2, 1)

        ids = await publish(bench, instance, (CHANNEL, 1), (CHANNEL, 2))

        failed = await eventually(instance.outbox.failed, lambda found: len(found) == 2)
        assert [message.id for message in failed] == ids
        assert instance.faults.tried == ids
        assert await instance.outbox.discard(ids[:1]) == 1
        assert await instance.outbox.discard() == 1
        assert await instance.outbox.failed() == []

    async def test_what_may_have_been_stored_is_never_given_up(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await subscribed(bench, recorder, max_retries=0)
        instance.faults.of[CHANNEL] = PublishUnconfirmed("id", "no answer")

        ids = await publish(bench, instance, (CHANNEL, 1))
        await eventually(lambda: len(instance.faults.tried) >= 3)
        assert await instance.outbox.failed() == []
        instance.faults.of.clear()

        await recorder.finished()
        assert recorder.ids == ids

    @pytest.mark.parametrize("error", [ConnectionLost("away"), PublishBlocked("away")], ids=_name)
    async def test_a_broker_that_takes_nothing_costs_no_attempt(
        self, bench: Bench, error: Exception
    ) -> None:
        recorder = Recorder()
        instance = await subscribed(bench, recorder, max_retries=0)
        instance.faults.of |= dict.fromkeys((CHANNEL, OTHER), error)

        ids = await publish(bench, instance, (CHANNEL, 1), (OTHER, 2))
        await eventually(lambda: len(instance.faults.tried) >= 2)
        await eventually(lambda: status(instance) == ("degraded", "nothing can be sent: away"))
        instance.faults.of.clear()

        await recorder.finished(2)
        assert sorted(recorder.ids) == sorted(ids)
        assert bench.reports("outbox.retried") == bench.reports("outbox.failed") == []
        await eventually(lambda: status(instance) == ("ok", "relaying"))

    async def test_what_may_have_been_stored_says_so_when_it_is_given_up(
        self, bench: Bench
    ) -> None:
        recorder = Recorder()
        instance = await subscribed(bench, recorder, max_retries=1)
        instance.faults.of[CHANNEL] = PublishUnconfirmed("id", "no answer")
        await publish(bench, instance, (CHANNEL, 1))
        await eventually(lambda: len(bench.reports("outbox.retried")) >= 3)

        instance.faults.of[CHANNEL] = PublishRefused("full")
        [failed] = await eventually(instance.outbox.failed)

        assert (failed.unconfirmed, failed.attempts, failed.error) == (
            *(True, 2),
            "PublishRefused: full",
        )
        assert bench.reports("outbox.failed")[0]["unconfirmed"] is True
        await instance.outbox.replay()
        [again] = await eventually(instance.outbox.failed)
        assert again.unconfirmed  # by what is known of all attempts

    async def test_a_refused_message_is_tried_again_when_it_is_due(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await subscribed(
            bench, recorder, max_retries=3, poll_interval=3600, listen=False
        )
        instance.faults.of[CHANNEL] = PublishRefused("full")

        await publish(bench, instance, (CHANNEL, 1))

        [failed] = await eventually(instance.outbox.failed)
        assert (failed.attempts, failed.unconfirmed) == (4, False)

    async def test_what_cannot_be_sent_leaves_nobody_behind_it_to_the_next_poll(
        self, bench: Bench
    ) -> None:
        recorder = Recorder()
        hour = RetryPolicy(initial_delay=3600, max_delay=3600)
        slow: dict[str, Any] = {"poll_interval": 3600, "retry": hour, "listen": False}
        instance = await subscribed(bench, recorder, start=False, batch_size=1, **slow)
        instance.faults.of["refused"] = PublishRefused("full")
        await publish(bench, instance, *[(CHANNEL, "spoilt")] * 6)
        spoil = update(instance.outbox.table).values(options=[])
        await bench.run(partial(execute, spoil))
        await publish(bench, instance, ("refused", 1), (CHANNEL, "good"))

        await instance.cluster.start()

        await recorder.finished()
        assert recorder.payloads == ["good"]
        assert len(bench.reports("outbox.failed")) == 6
        assert len(bench.reports("outbox.retried")) == 1
