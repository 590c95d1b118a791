from __future__ import annotations

import pytest

from cluster_kit.errors import ConnectionLost
from cluster_kit.names import QueueName
from cluster_kit.ports import QueueDepth
from tests.unit.memory_bench import QUEUE, fresh_url, joined, letter

pytestmark = pytest.mark.asyncio


async def test_dead_letters_come_oldest_first_as_they_were_buried() -> None:
    async with joined(fresh_url()) as one:
        await one.bury("1", "2", "3")

        assert await one.dead() == [letter("1"), letter("2"), letter("3")]
        assert await one.adapter.depth(QUEUE) == QueueDepth(ready=0, dead=3, consumers=0)


async def test_a_removed_one_is_gone_and_the_rest_stays_in_order() -> None:
    async with joined(fresh_url()) as one:
        await one.bury(*"12345")
        async with one.adapter.read_dead(QUEUE) as entries:
            async for entry in entries:
                if entry.envelope.id in "24":
                    await entry.remove()

        assert [envelope.id for envelope in await one.dead()] == ["1", "3", "5"]


async def test_what_a_reader_holds_no_other_sees() -> None:
    url = fresh_url()
    async with joined(url) as one, joined(url) as two:
        await one.bury("1", "2", "3")
        async with one.adapter.read_dead(QUEUE) as entries:
            first = await anext(entries)
            assert first.envelope.id == "1"
            assert [envelope.id for envelope in await two.dead()] == ["2", "3"]

        assert [envelope.id for envelope in await two.dead()] == ["1", "2", "3"]


async def test_a_reader_sees_what_was_there_when_it_began() -> None:
    async with joined(fresh_url()) as one:
        await one.bury("1")
        async with one.adapter.read_dead(QUEUE) as entries:
            await one.bury("2")

            assert [entry.envelope.id async for entry in entries] == ["1"]


async def test_an_entry_ends_with_its_reader() -> None:
    async with joined(fresh_url()) as one:
        await one.bury("1", "2")
        async with one.adapter.read_dead(QUEUE) as entries:
            entry, other = await anext(entries), await anext(entries)
            await entry.remove()
            with pytest.raises(ConnectionLost):
                await entry.remove()

        with pytest.raises(ConnectionLost, match="not held any more"):
            await other.remove()
        assert [envelope.id for envelope in await one.dead()] == ["2"]


async def test_a_reader_that_loses_its_link_lets_go() -> None:
    url = fresh_url()
    async with joined(url) as one, joined(url) as two:
        await one.bury("1", "2")
        async with one.adapter.read_dead(QUEUE) as entries:
            entry = await anext(entries)
            one.adapter.disconnect()

            assert [envelope.id for envelope in await two.dead()] == ["1", "2"]
            with pytest.raises(ConnectionLost):
                await entry.remove()
            assert [entry async for entry in entries] == []


async def test_dead_letters_belong_to_their_queue() -> None:
    async with joined(fresh_url()) as one:
        await one.bury("1")

        assert await one.dead(QueueName("shop", "other")) == []
