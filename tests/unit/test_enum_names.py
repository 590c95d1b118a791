"""Names that are members of an enum, or of another class made of `str`, are their text."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

from cluster_kit.errors import LockAlreadyHeld
from cluster_kit.names import check_app, check_channel, check_message_id, check_name, check_topic
from cluster_kit.patterns import check_pattern
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually


class Name(str, Enum):  # noqa: UP042 - it is what people write
    LOGIN = "login"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


@pytest.mark.parametrize(
    "check",
    [
        check_app,
        check_channel,
        check_message_id,
        check_pattern,
        check_topic,
        lambda name: check_name("cache key", name),
    ],
)
@pytest.mark.parametrize("name", [Name.LOGIN, Loud("login")])
def test_a_checked_name_is_a_plain_text(check: Callable[[object], str], name: str) -> None:
    checked = check(name)

    assert (type(checked), checked) == (str, "login")


@pytest.mark.asyncio
async def test_keys_and_tags_of_a_cache(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory(cache={"url": f"memory://{cluster_factory.name}"})
    cache = await cluster.caches.create_cache(Name.LOGIN)

    assert [await cache.incr(key) for key in (Name.LOGIN, "login", Loud("login"))] == [1, 2, 3]
    assert await cache.count("login") == await cache.clear_count(Name.LOGIN) == 3
    await cache.set(Name.LOGIN, {"login": 1}, tags=[Name.LOGIN])
    assert await cache.set_value_in_object("login", Name.LOGIN, 2)
    assert await cache.get("login") == {"login": 2}
    await cache.invalidate_tags("login")
    assert await cache.get("login") is None


@pytest.mark.asyncio
async def test_the_name_of_a_cache(cluster_factory: ClusterFactory) -> None:
    here, there = await cluster_factory(2, cache={"url": f"memory://{cluster_factory.name}"})
    made = await here.caches.create_cache(Name.LOGIN)
    await made.set("key", 1)

    assert here.caches.get_cache("login") is here.caches.get_cache(Name.LOGIN) is made
    assert await here.caches.create_cache("login") is made
    assert await (await there.caches.create_cache("login")).get("key") == 1
    assert list(here.caches.stats()) == [here.name, "login"]


@pytest.mark.asyncio
async def test_the_key_of_a_lock(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()

    async with cluster.locks.hold(Name.LOGIN) as lease:
        assert type(lease.key) is str
        assert (await cluster.locks.inspect("login")) is not None
        for key in ("login", Name.LOGIN):
            with pytest.raises(LockAlreadyHeld):
                await cluster.locks.acquire(key)
    assert (await cluster.locks.inspect("login")) is None


@pytest.mark.asyncio
async def test_channels_and_ids_of_tasks(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()
    queue, seen = cluster.event_queue, list[Any]()

    def fail(payload: object) -> None:
        seen.append(payload)
        raise ValueError

    queue.subscribe(Name.LOGIN, fail, max_retries=0)
    await queue.publish("login", 1, message_id=Name.LOGIN)
    await eventually(lambda: seen == [1])

    letters = await eventually(queue.dead_letters(Name.LOGIN).browse)
    assert type(letters[0].id) is str
    assert await queue.dead_letters("login").discard([Name.LOGIN]) == 1
