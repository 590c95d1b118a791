from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from cluster_kit.errors import ConnectError
from cluster_kit_memory.hubs import HUBS
from tests.unit.memory_bench import Instance, fresh_url, joined


@pytest.mark.asyncio
async def test_a_hub_lives_while_an_instance_uses_it() -> None:
    url = fresh_url()
    async with joined(url) as one:
        async with joined(url) as two:
            await two.publish("1")
        assert await one.ready() == 1
    async with joined(url) as late:
        assert await late.ready() == -1


@pytest.mark.asyncio
async def test_hubs_of_other_names_share_nothing() -> None:
    async with joined(fresh_url()) as one, joined(fresh_url()) as other:
        await one.publish("1")

        assert await other.ready() == -1


def test_a_hub_that_was_never_closed_does_not_reach_the_next_loop() -> None:
    url = fresh_url()

    async def forget_to_close() -> None:
        one = Instance(url, app="shop", clock=None, crash_limit=10)
        await one.adapter.connect()
        await one.publish("old")
        await one.publish("old and late", delay=1000)

    async def start_anew() -> int:
        async with joined(url) as one:
            return await one.ready()

    asyncio.run(forget_to_close())

    assert asyncio.run(start_anew()) == -1


def test_a_file_that_was_never_closed_is_free_for_the_next_loop(tmp_path: Path) -> None:
    url = f"{fresh_url()}?path={tmp_path / 'work.db'}"

    async def forget_to_close() -> None:
        one = Instance(url, app="shop", clock=None, crash_limit=10)
        await one.adapter.connect()
        await one.publish("1")

    async def start_anew() -> int:
        async with joined(url) as one:
            return await one.ready()

    asyncio.run(forget_to_close())

    assert asyncio.run(start_anew()) == 1


def test_a_hub_in_use_is_refused_to_another_thread() -> None:
    url = fresh_url()
    refused: list[BaseException] = []

    async def intrude() -> None:
        one = Instance(url, app="shop", clock=None, crash_limit=10)
        try:
            await one.adapter.connect()
        except ConnectError as exc:
            refused.append(exc)

    async def own() -> None:
        async with joined(url):
            thread = threading.Thread(target=lambda: asyncio.run(intrude()))
            thread.start()
            await asyncio.to_thread(thread.join)

    asyncio.run(own())

    assert len(refused) == 1
    assert "another event loop" in str(refused[0])


@pytest.mark.asyncio
async def test_one_hub_has_one_file(tmp_path: Path) -> None:
    url = fresh_url()
    async with joined(f"{url}?path={tmp_path / 'a.db'}"):
        with pytest.raises(ConnectError, match=r"is in use with .*a\.db"):
            async with joined(f"{url}?path={tmp_path / 'b.db'}"):
                pass
        with pytest.raises(ConnectError, match=r"is in use with .*a\.db"):
            async with joined(url):
                pass


@pytest.mark.asyncio
async def test_one_file_has_one_hub(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    (tmp_path / "link.db").symlink_to(path)
    async with joined(f"{fresh_url()}?path={path}") as one:
        with pytest.raises(ConnectError, match="in use by hub") as caught:
            async with joined(f"{fresh_url()}?path={tmp_path / 'link.db'}"):
                pass
        assert not caught.value.retryable
        await one.publish("still works")


@pytest.mark.asyncio
async def test_many_instances_may_come_and_go_at_once(tmp_path: Path) -> None:
    url = f"{fresh_url()}?path={tmp_path / 'a.db'}"

    async def visit(n: int) -> None:
        async with joined(url) as one:
            await one.publish(str(n))

    for _ in range(3):
        async with asyncio.TaskGroup() as group:
            for n in range(5):
                group.create_task(visit(n))
    async with joined(url) as one:
        assert await one.ready() == 15


@pytest.mark.asyncio
async def test_a_cancelled_connect_leaves_nothing_behind(tmp_path: Path) -> None:
    url = f"{fresh_url()}?path={tmp_path / 'a.db'}"
    for turns in range(4):
        one = Instance(url, app="shop", clock=None, crash_limit=10)
        connecting = asyncio.create_task(one.adapter.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait({connecting})
        await one.adapter.close()
    async with joined(url) as one:
        await one.publish("1")

    assert not [name for name in HUBS._open if url.startswith(f"memory://{name}?")]
