"""Scenarios: what is committed is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.transactions.base import EACH_KIND, Scenarios
from cluster_kit.testing.contracts.transactions.bench import CHANNEL
from cluster_kit.testing.recorder import Recorder

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.transactions.bench import Bench
    from cluster_kit.testing.contracts.transactions.environment import Kind


@pytest.mark.asyncio
class CommitScenarios(Scenarios):
    """Sent after the commit, in the order of the calls."""

    @EACH_KIND
    async def test_it_is_sent_after_the_commit_and_in_order(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        await bench.write(work, 1, 2, 3)
        assert await bench.heard() == []

        await work.commit()

        assert await bench.heard() == [1, 2, 3]
        await work.close()
        assert bench.committed() == [1, 2, 3]

    @pytest.mark.parametrize("first", ["session", "connection"])
    @pytest.mark.parametrize("kind", ["session", "async_session"])
    async def test_a_session_and_its_connection_have_one_order(
        self, bench: Bench, kind: Kind, first: str
    ) -> None:
        session = await bench.environment.work(kind)
        connection = await session.connection()
        order = [session, connection] if first == "session" else [connection, session]
        for number, work in enumerate(order * 2):
            await bench.write(work, number)
        for work in order:
            savepoint = await work.savepoint()
            await bench.write(session, 98)
            await bench.write(connection, 99)
            await savepoint.rollback()
        await bench.write(connection, 4)
        await bench.write(session, 5)
        assert await bench.heard() == []

        await session.commit()

        assert await bench.heard() == bench.committed() == list(range(6))
        await bench.publish(await session.connection(), "dropped")
        await bench.publish(session, "dropped")
        await session.rollback()
        await session.close()
        assert await bench.heard() == []

    @EACH_KIND
    async def test_the_id_is_known_at_once(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        message_id = await bench.publish(work, "poke")
        await work.commit()
        await work.close()

        await bench.heard()
        assert bench.hearer.heard[0].event.id == message_id

    @EACH_KIND
    async def test_a_task_is_published_alike(self, bench: Bench, kind: Kind) -> None:
        recorder = Recorder()
        bench.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        work = await bench.environment.work(kind)
        publish = bench.cluster.event_queue.publish
        await publish(CHANNEL, "first", transaction=work.subject)
        await work.rollback()
        task_id = await publish(CHANNEL, "second", transaction=work.subject, message_id="a-task")
        await work.commit()
        await work.close()

        await recorder.started()
        assert (recorder.payloads, recorder.ids, task_id) == (["second"], ["a-task"], "a-task")

    @EACH_KIND
    async def test_a_payload_that_changes_later_is_sent_as_it_was(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        message = {"names": ["a"]}
        await bench.publish(work, message)
        message["names"].append("b")
        await work.commit()
        await work.close()

        assert await bench.heard() == [{"names": ["a"]}]

    @EACH_KIND
    async def test_one_session_has_many_transactions(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        for value in range(1, 7):
            await bench.write(work, value)
            await (work.commit() if value % 2 else work.rollback())
        await work.close()

        assert await bench.heard() == bench.committed() == [1, 3, 5]

    @EACH_KIND
    async def test_publishing_first_begins_the_transaction(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        await bench.publish(work, 1)
        assert work.subject.in_transaction()
        await work.write(1)
        await work.commit()
        await work.close()

        assert await bench.heard() == [1]

    @EACH_KIND
    async def test_nothing_but_messages_may_be_committed(self, bench: Bench, kind: Kind) -> None:
        work = await bench.environment.work(kind)
        await bench.publish(work, "alone")
        await work.commit()
        await work.close()

        assert await bench.heard() == ["alone"]

    @EACH_KIND
    async def test_two_sessions_do_not_mix(self, bench: Bench, kind: Kind) -> None:
        first, second = [await bench.environment.work(kind) for _ in range(2)]
        await bench.publish(first, 1)
        await first.commit()
        await bench.publish(second, 2)
        await bench.publish(first, 3)
        await second.commit()
        await first.rollback()
        await first.close()
        await second.close()

        assert await bench.heard() == [1, 2]
