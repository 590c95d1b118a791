"""Scenarios: a database that cannot be written to, as a whole or in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from cluster_kit.testing.contracts.outbox.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.outbox.relaying import status
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.outbox.bench import Bench, Instance

_KEEP_ROWS = {
    "postgresql": "CREATE RULE keep AS ON DELETE TO my_outbox DO INSTEAD NOTHING",
    "sqlite": "CREATE TRIGGER keep BEFORE DELETE ON my_outbox BEGIN SELECT RAISE(IGNORE); END",
}
_LET_GO = {
    "postgresql": "DROP RULE keep ON my_outbox",
    "sqlite": "DROP TRIGGER keep",
}


async def _publish(bench: Bench, instance: Instance, *keys: str) -> list[str]:
    async with AsyncSession(bench.engine) as session, session.begin():
        return [await instance.outbox.publish(session, CHANNEL, key, key=key) for key in keys]


@pytest.mark.asyncio
class SettlingScenarios(Scenarios):
    """What cannot be deleted is not sent; what was sent is not sent again for that."""

    async def test_a_relay_that_can_only_read_sends_nothing(self, bench: Bench) -> None:
        recorder = Recorder()
        instance = await bench.instance(start=False)
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        ids = await _publish(bench, instance, "a", "a", "b")

        async with bench.environment.unwritable():
            await bench.engine.dispose()
            await instance.cluster.start()
            await eventually(lambda: status(instance)[0] == "down", timeout=60)
            assert instance.faults.tried == []
        await bench.engine.dispose()

        await recorder.finished(3, timeout=60)
        assert sorted(instance.faults.tried) == sorted(ids)
        await eventually(lambda: status(instance) == ("ok", "relaying"))

    async def test_rows_that_are_never_deleted_are_never_sent(self, bench: Bench) -> None:
        recorder = Recorder()
        dialect = bench.engine.dialect.name
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await bench.run(lambda connection: connection.execute(text(_KEEP_ROWS[dialect])))

        ids = await _publish(bench, instance, "a")
        _, detail = await eventually(lambda: status(instance), lambda found: found[0] == "down")
        assert "rows of my_outbox cannot be deleted" in detail
        assert instance.faults.tried == []
        await bench.run(lambda connection: connection.execute(text(_LET_GO[dialect])))

        await recorder.finished()
        assert instance.faults.tried == recorder.ids == ids

    async def test_what_was_sent_and_could_not_be_deleted_is_not_sent_again(
        self, bench: Bench
    ) -> None:
        recorder = Recorder()
        instance = await bench.instance()
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        instance.faults.gate.clear()
        ids = await _publish(bench, instance, "a", "b")
        await eventually(lambda: len(instance.faults.tried) == 2)

        failures: list[object] = []
        event.listen(bench.engine.sync_engine, "handle_error", failures.append)
        async with bench.environment.unwritable():
            instance.faults.gate.set()
            await recorder.finished(2)
            await eventually(lambda: status(instance)[0] == "down", timeout=60)
            await eventually(lambda: len(failures) >= 3, timeout=60)
            assert status(instance)[0] == "down"
        await bench.engine.dispose()

        ids += await _publish(bench, instance, "a", "c")
        await recorder.finished(4, timeout=60)
        stats = await eventually(instance.outbox.stats, lambda found: found.pending == 0)
        assert stats.sent == 4
        assert sorted(instance.faults.tried) == sorted(recorder.ids) == sorted(ids)

    async def test_what_was_sent_before_a_hard_stop_is_not_sent_by_the_next_start(
        self, bench: Bench
    ) -> None:
        recorder = Recorder()
        instance = await bench.instance(stop_grace=0)
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        instance.faults.gate.clear()
        ids = await _publish(bench, instance, "a", "a")
        await eventually(lambda: instance.faults.tried)

        instance.faults.gate.set()
        instance.faults.gate.clear()  # for the second
        await eventually(lambda: len(instance.faults.tried) == 2)
        await instance.cluster.stop(timeout=0)
        assert (await instance.outbox.stats()).pending == 2
        instance.faults.gate.set()
        await instance.cluster.start()

        await recorder.finished(2)
        assert recorder.ids == ids
        assert instance.faults.tried == [ids[0], ids[1], ids[1]]

    @pytest.mark.needs("row_locks")
    async def test_a_row_that_somebody_has_locked_holds_up_its_own_key_alone(
        self, bench: Bench
    ) -> None:
        recorder = Recorder()
        instance = await bench.instance(start=False, batch_size=1)
        instance.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        table: Any = instance.outbox.table
        ids = await _publish(bench, instance, "a", "a", "b", "a", "b")

        async with bench.engine.begin() as connection:
            await connection.execute(select(table).where(table.c.id == ids[0]).with_for_update())
            await instance.cluster.start()
            await recorder.finished(2)
            assert recorder.payloads == ["b", "b"]
            found, detail = await eventually(lambda: status(instance), lambda s: s[0] != "ok")
            assert (found, detail) == (
                "degraded",
                "1 keys wait for a row that another transaction has locked",
            )

        await recorder.finished(5)
        assert instance.faults.tried == [ids[2], ids[4], ids[0], ids[1], ids[3]]
        await eventually(lambda: status(instance) == ("ok", "relaying"))

    @pytest.mark.needs("row_locks")
    async def test_a_relay_that_hangs_keeps_its_lanes_no_longer_than_it_may(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cluster_kit_sqlalchemy.relay.turns.IDLE_SECONDS", 1.0)
        recorder = Recorder()
        hanging = await bench.instance()
        hanging.faults.gate.clear()  # as if its process were stopped
        ids = await _publish(bench, hanging, "a", "a", "a")
        await eventually(lambda: hanging.faults.tried)

        other = await bench.instance()
        other.cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await recorder.finished(3, timeout=60)
        assert (hanging.faults.tried, other.faults.tried) == (ids[:1], ids)
        await eventually(other.outbox.stats, lambda found: found.pending == 0)

        hanging.faults.gate.set()
        await eventually(lambda: bench.reports("outbox.database_back"))
        assert (await hanging.outbox.stats()).sent == 0  # what another has settled
        ids += await _publish(bench, hanging, "a")
        await recorder.finished(4)
        assert recorder.ids == ids  # of the one that was sent twice, a consumer had one
        await eventually(lambda: status(hanging) == status(other) == ("ok", "relaying"))

    async def test_a_relay_tells_that_messages_are_late_because_another_hangs(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cluster_kit_sqlalchemy.relay.loop.REPORT_EVERY", 0.1)
        monkeypatch.setattr("cluster_kit_sqlalchemy.relay.loop.LATE", 1.0)
        hanging = await bench.instance()
        hanging.faults.gate.clear()
        await _publish(bench, hanging, "a")
        await eventually(lambda: hanging.faults.tried)

        other = await bench.instance()
        found, detail = await eventually(lambda: status(other), lambda s: s[0] != "ok")
        assert (found, "a message that is due waits since " in detail) == ("degraded", True)

        hanging.faults.gate.set()
        await eventually(lambda: status(hanging) == status(other) == ("ok", "relaying"))
