from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from cluster_kit.errors import PublishRefused
from cluster_kit.testing.contracts.outbox import Environment, Features, OutboxContract
from cluster_kit.testing.waiting import eventually
from cluster_kit_sqlalchemy import Inbox
from cluster_kit_sqlalchemy.outbox.store import Depth, Store
from cluster_kit_sqlalchemy.relay import loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from cluster_kit.testing.contracts.outbox.bench import Bench


class SqliteEnvironment(Environment):
    """A file, and a hub in memory."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "shop.db"
        self._patience = 5000  # milliseconds, of one who wants to write while another does

    def url(self) -> str:
        return f"sqlite+aiosqlite:///{self._path}"

    def blocking_url(self) -> str:
        return f"sqlite:///{self._path}"

    @asynccontextmanager
    async def unwritable(self) -> AsyncGenerator[None]:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")  # there is one writer at a time
        self._patience = 100  # in vain
        yield
        self._patience = 5000
        connection.close()

    def prepare(self, engine: Engine) -> None:
        @event.listens_for(engine, "connect")
        def quicken(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA synchronous=OFF")

        @event.listens_for(engine, "checkout")
        def wait(connection: Any, _record: object, _proxy: object) -> None:
            connection.execute(f"PRAGMA busy_timeout={self._patience}")


class TestSqliteOutbox(OutboxContract):
    features: ClassVar[Features] = Features(
        isolation=False, outage=False, two_phase=False, tells=False, row_locks=False, lax=True
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return SqliteEnvironment(request.getfixturevalue("tmp_path"))

    async def test_what_becomes_due_while_a_relay_counts_is_not_left_to_the_next_poll(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count = Store.depth

        async def count_slowly(store: Store, connection: AsyncConnection) -> Depth:
            await asyncio.sleep(0.2)  # longer than a retry waits
            return await count(store, connection)

        monkeypatch.setattr(loop, "_SOON", 0.0)
        monkeypatch.setattr(Store, "depth", count_slowly)
        instance = await bench.instance(max_retries=8, poll_interval=3600, listen=False)
        instance.faults.of["orders"] = PublishRefused("full")
        async with AsyncSession(bench.engine) as session, session.begin():
            await instance.outbox.publish(session, "orders", 1)

        [failed] = await eventually(instance.outbox.failed)
        assert failed.attempts == 9

    async def test_an_inbox_that_can_prune_again_is_ok_since_then(self, bench: Bench) -> None:
        table = (await bench.instance(relay=False)).inbox.table
        [cluster] = await bench.clusters()
        inbox = Inbox(cluster, bench.engine, table=table, prune_interval=0.02)
        await bench.run(table.drop)
        await cluster.start()
        down = await eventually(inbox.health, lambda found: found.status == "degraded")
        assert "pruning failed" in down.detail

        await bench.run(table.create)

        back = await eventually(inbox.health, lambda found: found.status == "ok")
        assert inbox.health().since == back.since > down.since

    @pytest.mark.parametrize(("max_retries", "attempts"), [(0, 1), (3, 4)])
    async def test_a_refusal_whose_commit_got_no_answer_counts_once(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, max_retries: int, attempts: int
    ) -> None:
        instance = await bench.instance(max_retries=max_retries)
        commit, lost = AsyncConnection.commit, list[int]()

        async def answer_late(connection: AsyncConnection) -> None:
            await commit(connection)
            if instance.faults.tried and not lost:
                lost.append(1)
                raise OSError("no answer")

        monkeypatch.setattr(AsyncConnection, "commit", answer_late)
        instance.faults.of["orders"] = PublishRefused("full")
        async with AsyncSession(bench.engine) as session, session.begin():
            await instance.outbox.publish(session, "orders", 1)

        [failed] = await eventually(instance.outbox.failed)
        assert (failed.attempts, len(instance.faults.tried), lost) == (attempts, attempts, [1])
        instance.faults.of.clear()
        await eventually(lambda: instance.outbox._past.unsettled.positions == [])
        assert await instance.outbox.replay([failed.id]) == 1
        await eventually(
            instance.outbox.stats, lambda stats: (stats.pending, stats.failed) == (0, 0)
        )
        assert len(instance.faults.tried) == attempts + 1
