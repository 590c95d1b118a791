from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cluster_kit.errors import ConnectError, EncodeError, PublishRefused, PublishUnconfirmed
from cluster_kit.message import DeadReason, Envelope
from cluster_kit.names import QueueName
from cluster_kit.testing.clock import FakeClock
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory.event_queue import MemoryEventQueue
from tests.unit.memory_bench import QUEUE, Instance, fresh_url, joined, letter, task

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"{fresh_url()}?path={path}"


def copy_as_if_killed(path: Path) -> str:
    """What the disk holds now is what a killed process would leave."""
    copy = path.with_name("copy.db")
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    return f"{fresh_url()}?path={copy}"


async def test_unfinished_work_survives_a_restart_in_order(url: str) -> None:
    sent = [task(str(n), body=bytes([0, 255, n]), timeout=1.5, attempt=3) for n in range(20)]
    async with joined(url) as one:
        for envelope in sent:
            await one.adapter.publish(envelope, timeout=5)
        await one.bury("dead 1", "dead 2")
    async with joined(url) as one:
        inbox = await one.consume()
        await inbox.holds(*(str(n) for n in range(20)))

        assert [received.envelope for received in inbox.received] == sent
        assert await one.dead() == [letter("dead 1"), letter("dead 2")]


async def test_what_was_finished_does_not_come_back(url: str) -> None:
    async with joined(url) as one:
        inbox = await one.consume(prefetch=1)
        await one.publish("1", "2", "3")
        await inbox.holds("1")
        await inbox.received.pop().ack()
        await inbox.holds("2")
        await inbox.received.pop().ack()
        await one.bury("dead")
        async with one.adapter.read_dead(QUEUE) as entries:
            await (await anext(entries)).remove()
    async with joined(url) as one:
        inbox = await one.consume()
        await inbox.holds("3")

        assert await one.dead() == []


async def test_what_ran_when_the_process_died_comes_back_first_and_redelivered(
    url: str, path: Path
) -> None:
    async with joined(url) as one:
        inbox = await one.consume(prefetch=2)
        await one.publish("1", "2", "3")
        await inbox.holds("1", "2")
        kept = [received.copy_id for received in inbox.received]
        after_the_kill = copy_as_if_killed(path)

    async with joined(after_the_kill) as one:
        inbox = await one.consume()
        await inbox.holds("1", "2", "3")
        assert [received.redeliveries for received in inbox.received] == [1, 1, 0]
        assert [received.copy_id for received in inbox.received[:2]] == kept


async def test_delays_keep_their_due_time_over_a_restart(url: str, fake_clock: FakeClock) -> None:
    async with joined(url, clock=fake_clock) as one:
        await one.publish("10", delay=10)
        await one.publish("5", delay=5)
        await one.publish("100", delay=100)
    await fake_clock.advance(7)
    async with joined(url, clock=fake_clock) as one:
        assert await one.ready() == 1
        await fake_clock.advance(3)
        inbox = await one.consume()
        await inbox.holds("5", "10")
        await inbox.ack_all()
    async with joined(url, clock=fake_clock) as one:
        await fake_clock.advance(90)
        assert await one.ready() == 1


async def test_a_delay_that_has_passed_keeps_its_place_in_line(
    url: str, fake_clock: FakeClock
) -> None:
    async with joined(url, clock=fake_clock) as one:
        await one.publish("delayed", delay=1)
        await fake_clock.advance(1)
        await one.publish("later")
    async with joined(url, clock=fake_clock) as one:
        inbox = await one.consume()
        await inbox.holds("delayed", "later")


async def test_what_expires_while_nobody_runs_is_dead_at_the_restart(
    url: str, fake_clock: FakeClock
) -> None:
    async with joined(url, clock=fake_clock) as one:
        await one.publish("1", expires_at=fake_clock.wall() + 5)
    await fake_clock.advance(6)
    for _ in range(2):
        async with joined(url, clock=fake_clock) as one:
            [dead] = await one.dead()
            assert dead.death is not None
            assert dead.death.reason is DeadReason.EXPIRED
            assert await one.ready() == 0


async def test_queues_are_remembered(url: str) -> None:
    async with joined(url) as one:
        await one.consume(queue=QueueName("shop", "a"))
        await one.consume(queue=QueueName(None, "shared"))
    async with joined(url) as one:
        assert await one.adapter.channels() == [QueueName("shop", "a")]
        assert await one.ready(QueueName(None, "shared")) == 0


async def test_headers_of_every_kind_survive(url: str) -> None:
    headers = {
        "text": "žluť \ud800",
        "number": 2**63,
        "none": None,
        "true": True,
        "bytes": b"\x00\xff",
        "time": datetime(2024, 5, 6, tzinfo=UTC),
        "decimal": Decimal("1.10"),
        "nested": {"$": ["a", {"b": b"c"}], "value": 1.5},
    }
    async with joined(url) as one:
        await one.publish("1", headers=headers)
    async with joined(url) as one:
        inbox = await one.consume()
        await inbox.holds("1")

        assert inbox.received[0].envelope.headers == headers


async def test_a_header_that_cannot_be_kept_is_refused_by_name(url: str) -> None:
    async with joined(url) as one:
        with pytest.raises(EncodeError, match="header 'odd': a object cannot be kept"):
            await one.publish("1", headers={"odd": object()})
        await one.publish("2")

        assert await one.ready() == 1


async def test_a_publish_that_runs_out_of_time_may_be_stored_all_the_same(url: str) -> None:
    async with joined(url) as one:
        with pytest.raises(PublishUnconfirmed) as caught:
            await one.adapter.publish(task("1"), timeout=0)
        assert caught.value.message_id == "1"

        await eventually(one.ready, lambda ready: ready == 1)


async def test_connecting_gives_up_at_its_timeout(url: str) -> None:
    one = Instance(url, app="shop", clock=None, crash_limit=10)
    one.adapter = MemoryEventQueue(url, replace(one.context, connect_timeout=0))
    with pytest.raises(ConnectError, match="takes longer than 0 s"):
        await one.adapter.connect()
    async with joined(url) as two:
        await two.publish("1")


async def test_many_at_once_share_a_write_and_keep_their_order(url: str) -> None:
    async with joined(url) as one, asyncio.TaskGroup() as group:
        for n in range(500):
            group.create_task(one.adapter.publish(task(str(n)), timeout=20))
    async with joined(url) as one:
        inbox = await one.consume(prefetch=500)
        await inbox.holds(*(str(n) for n in range(500)))


async def test_the_file_is_for_its_owner_only_and_the_only_one_left(url: str, path: Path) -> None:
    async with joined(url) as one:
        await one.publish("1")

    assert mode(path) == 0o600
    assert beside(path) == [path.name]


async def refusal(url: str) -> str:
    one = Instance(url, app="shop", clock=None, crash_limit=10)
    with pytest.raises(ConnectError) as caught:
        await one.adapter.connect()
    assert not caught.value.retryable
    return str(caught.value)


async def test_a_file_that_is_something_else_is_named_and_left_alone(url: str, path: Path) -> None:
    before = b"my only copy of the accounts\n" * 100
    write(path, before)

    text = await refusal(url)
    assert str(path) in text
    assert "damaged or no queue file" in text
    assert read(path) == before
    assert beside(path) == [path.name]


async def test_a_damaged_file_is_named_and_left_alone(url: str, path: Path) -> None:
    async with joined(url) as one:
        for n in range(200):
            await one.publish(str(n))
    whole = read(path)
    damaged = whole[: 4096 * 2] + b"\xee" * 4096 + whole[4096 * 3 :]
    write(path, damaged)

    text = await refusal(url)
    assert str(path) in text
    assert "damaged" in text
    assert read(path) == damaged


async def test_a_database_of_something_else_is_left_alone(url: str, path: Path) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE accounts (x)")
    base.close()

    assert "database of something else" in await refusal(url)


async def test_a_file_of_a_later_version_is_left_alone(url: str, path: Path) -> None:
    async with joined(url) as one:
        await one.publish("1")
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA user_version = 7")
    base.close()

    assert "has format 7, this version reads 1" in await refusal(url)


async def test_a_row_that_makes_no_sense_is_damage(url: str, path: Path) -> None:
    async with joined(url) as one:
        await one.publish("1")
    with sqlite3.connect(path) as base:
        base.execute("UPDATE tasks SET envelope = '{}'")
    base.close()

    assert "damaged" in await refusal(url)


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    text = await refusal(f"{fresh_url()}?path={tmp_path / 'no' / 'work.db'}")

    assert str(tmp_path / "no" / "work.db") in text
    assert "No such file" in text


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "cannot be opened" in await refusal(f"{fresh_url()}?path={tmp_path}")


async def test_an_empty_file_is_a_new_one(url: str, path: Path) -> None:
    write(path, b"")
    async with joined(url) as one:
        await one.publish("1")


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def beside(path: Path) -> list[str]:
    return [file.name for file in path.parent.iterdir()]


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run `code` in another process; it prints what a test waits for."""
    script = PRELUDE + textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


PRELUDE = """
import asyncio, os, signal, sys
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory.event_queue import MemoryEventQueue
from tests.unit.memory_bench import *
"""


async def test_a_process_that_is_killed_loses_nothing_it_was_told_is_stored(path: Path) -> None:
    process = start_python(
        """
        async def main():
            async with joined("memory://?path=" + sys.argv[1]) as one:
                inbox = await one.consume(prefetch=3)
                n = 0
                while True:
                    await one.publish(str(n))
                    print(n, flush=True)
                    if n % 5 == 0:
                        await one.publish(f"delayed {n}", delay=3600)
                        await one.bury(f"dead {n}")
                    n += 1
        asyncio.run(main())
        """,
        path,
    )
    while (line := await asyncio.to_thread(next_line, process)) != "60":
        assert line
    kill(process)

    async with joined(f"{fresh_url()}?path={path}") as one:
        left = await one.ready()
        assert left > 60
        inbox = await one.consume(prefetch=left)
        await inbox.holds(*(str(n) for n in range(left)))
        assert [received.redeliveries for received in inbox.received[:4]] == [1, 1, 1, 0]
        assert {f"dead {n}" for n in range(0, 60, 5)} <= {dead.id for dead in await one.dead()}
        assert one.adapter._used is not None
        assert one.adapter._used.hub.unfinished() >= 12


async def test_a_task_that_kills_its_process_is_counted_each_time(path: Path) -> None:
    async with joined(f"{fresh_url()}?path={path}") as one:
        await one.publish("poison")
    for _ in range(3):
        process = start_python(
            """
            async def main():
                async with joined("memory://?path=" + sys.argv[1]) as one:
                    die = lambda received: os.kill(os.getpid(), signal.SIGKILL)
                    await one.adapter.consume(QUEUE, prefetch=1, on_delivery=die)
                    await asyncio.sleep(30)
            asyncio.run(main())
            """,
            path,
        )
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()

    async with joined(f"{fresh_url()}?path={path}") as one:
        inbox = await one.consume()
        await inbox.holds("poison")
        assert inbox.received[0].redeliveries == 3


async def test_a_second_process_is_refused_until_the_first_is_gone(url: str, path: Path) -> None:
    process = start_python(
        """
        async def main():
            async with joined("memory://?path=" + sys.argv[1]) as one:
                await one.publish("1")
                print("open", flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
        """,
        path,
    )
    assert await asyncio.to_thread(next_line, process) == "open"
    one = Instance(url, app="shop", clock=None, crash_limit=10)
    with pytest.raises(ConnectError, match="in use by another process") as caught:
        await one.adapter.connect()
    assert caught.value.retryable
    kill(process)
    await one.adapter.connect()

    assert await one.ready() == 1
    await one.adapter.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="file size limits are a thing of POSIX")
async def test_a_full_disk_refuses_tasks_and_loses_no_outcome(path: Path) -> None:
    process = start_python(
        """
        import resource
        from cluster_kit.errors import PublishRefused

        async def main():
            async with joined("memory://?path=" + sys.argv[1]) as one:
                inbox = await one.consume(prefetch=1)
                await one.publish("done", "left")
                await inbox.holds("done")
                soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
                try:
                    await one.publish("refused")
                except PublishRefused:
                    print("refused", one.adapter.health().status, flush=True)
                await inbox.received[0].ack()
                await inbox.holds("done", "left")
                await inbox.consumer.pause()
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                await inbox.received[1].give_back()
                await one.publish("after")
                print(one.adapter.health().status, await one.ready(), flush=True)
        asyncio.run(main())
        """,
        path,
    )
    output, _ = await asyncio.to_thread(process.communicate)
    assert output.splitlines() == ["refused degraded", "ok 2"]

    async with joined(f"{fresh_url()}?path={path}") as one:
        inbox = await one.consume()
        await inbox.holds("left", "after")
        assert inbox.received[0].redeliveries == 0


async def test_a_refused_task_is_the_only_one_that_suffers(url: str) -> None:
    no_bytes: Any = object()
    outcomes: dict[str, str] = {}

    async def publish(one: Instance, envelope: Envelope) -> None:
        try:
            await one.adapter.publish(envelope, timeout=5)
        except PublishRefused as exc:
            outcomes[envelope.id] = str(exc)

    async with joined(url) as one:
        async with asyncio.TaskGroup() as group:
            for envelope in (task("1"), task("2", body=no_bytes), task("3")):
                group.create_task(publish(one, envelope))

        assert list(outcomes) == ["2"]
        assert "task 2 is not stored" in outcomes["2"]
        assert one.adapter.health().status == "ok"
        inbox = await one.consume()
        await inbox.holds("1", "3")
