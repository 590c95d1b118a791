from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from cluster_kit.clock import SystemClock
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually
from cluster_kit_sqlalchemy import Outbox, create_tables

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from cluster_kit.cluster import Cluster
    from cluster_kit.testing.servers import RabbitServer

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]

CHANNEL = "orders.created"


@contextlib.asynccontextmanager
async def running(
    url: str, folder: Path, **options: Any
) -> AsyncGenerator[tuple[Cluster, Outbox, AsyncEngine]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/shop.db")
    await create_tables(engine)
    factory = ClusterFactory(url)
    [cluster] = await factory(start=False, event_queue={"publish_timeout": 1.5})
    outbox = Outbox(cluster, engine, poll_interval=0.5, **options)
    await cluster.start()
    yield cluster, outbox, engine
    await factory.close()
    await engine.dispose()


async def publish(outbox: Outbox, engine: AsyncEngine, *payloads: int) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await outbox.publish_many(session, CHANNEL, payloads)


@pytest.mark.own_broker
async def test_while_the_broker_blocks_publishers_no_attempt_counts(
    own_rabbitmq: str, own_rabbitmq_server: RabbitServer, tmp_path: Path
) -> None:
    recorder = Recorder()
    events: list[tuple[str, dict[str, object]]] = []
    async with running(own_rabbitmq, tmp_path, max_retries=0) as (cluster, outbox, engine):
        cluster.telemetry.subscribe(lambda event, fields: events.append((event, dict(fields))))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await publish(outbox, engine, 0)
        await recorder.finished(1)
        ctl = own_rabbitmq_server.ctl
        await asyncio.to_thread(ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            await publish(outbox, engine, 1, 2, 3)

            def detail() -> str:
                return str(cluster.health()["adapters"]["outbox"]["detail"])

            await eventually(detail, lambda said: "the broker blocks publishers" in said)
            clock = SystemClock()
            until = clock.monotonic() + 6.0  # several tries
            await eventually(lambda: clock.monotonic() > until)
            stats = await outbox.stats()
            assert (stats.pending, stats.failed) == (3, 0)
        finally:
            await asyncio.to_thread(ctl, "set_vm_memory_high_watermark", "0.4")

        await eventually(outbox.stats, lambda found: found.pending == 0, timeout=60)
        await eventually(lambda: 3 in recorder.payloads)
        assert list(dict.fromkeys(recorder.payloads)) == [0, 1, 2, 3]
        # The one that met the alarm got no answer; the others were not tried.
        retried = [fields for event, fields in events if event == "outbox.retried"]
        assert len({fields["id"] for fields in retried}) <= 1
        assert {fields["attempt"] for fields in retried} <= {1}
        assert not [event for event, _ in events if event == "outbox.failed"]
