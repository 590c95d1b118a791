from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any, Literal

import pytest

from cluster_kit import Cache, Cluster, loaded
from cluster_kit.cache.values import MAX_DEPTH, Values
from cluster_kit.errors import ConfigurationError, EncodeError
from cluster_kit.testing.factory import ClusterFactory

DEPTHS = [MAX_DEPTH + 1, 480, 600, 950, 5000]


def nested(depth: int) -> object:
    value: object = "]" * 10
    for level in range(depth):
        value = [value] if level % 2 else {'a"\\': value}
    return value


async def caches(factory: ClusterFactory) -> list[Cache]:
    hub = f"memory://{factory.name}"
    clusters = await factory(2, cache={"url": hub})
    return [await c.caches.create_cache("rows", backplane=True) for c in clusters]


@pytest.mark.asyncio
@pytest.mark.parametrize("depth", DEPTHS)
async def test_a_value_nested_too_deeply_changes_nothing(
    depth: int, cluster_factory: ClusterFactory
) -> None:
    here, there = await caches(cluster_factory)
    await here.set("row", "old")

    with pytest.raises(EncodeError, match=r"'row'.*nested"):
        await here.set("row", nested(depth))
    with pytest.raises(EncodeError, match=r"'loaded'.*nested"):
        await here.wrap("loaded", lambda: nested(depth))

    assert [await cache.get("row") for cache in (here, there)] == ["old", "old"]
    assert await there.wrap("loaded", lambda: 1) == 1


@pytest.mark.asyncio
async def test_the_deepest_value_is_kept_and_copied(cluster_factory: ClusterFactory) -> None:
    for cache in await caches(cluster_factory):
        await cache.set("row", nested(MAX_DEPTH))
        assert await cache.get("row") == nested(MAX_DEPTH)


@pytest.mark.parametrize(
    "value",
    [
        [[1]] * MAX_DEPTH,
        ["[" * 300, "]", "\\", '"', '\\"[[', "", "{", "[", '"[', {"[": [], '"': {}, "\\": 1}] * 99,
        "[" * 1000,
    ],
)
def test_what_is_wide_is_not_deep(value: object) -> None:
    values = Values("deep", encoded=True, limit=10**6)

    assert json.loads(values.encode("row", value)) == value


@pytest.mark.asyncio
async def test_what_has_no_json_form_names_its_key(cluster_factory: ClusterFactory) -> None:
    [cache, _] = await caches(cluster_factory)

    with pytest.raises(EncodeError, match=r"^the value of 'b' is not JSON: object has no JSON "):
        await cache.mset({"a": 1, "b": object()})
    with pytest.raises(EncodeError, match="'a' is not JSON: Loaded has no JSON form"):
        await cache.set("a", [loaded(1)])
    with pytest.raises(EncodeError, match="the value of 'c'"):
        await cache.set_value_in_object("c", "field", object(), create=True)

    assert await cache.get("a") is None


@pytest.mark.asyncio
@pytest.mark.parametrize("copy", ["deep", "none"])
async def test_what_loaders_return_is_no_value(
    copy: Literal["deep", "none"], cluster_factory: ClusterFactory
) -> None:
    [cluster] = await cluster_factory(cache={"url": "memory://"})
    cache = await cluster.caches.create_cache("rows", copy=copy, backplane=False)

    with pytest.raises(EncodeError, match=r"'row' is made by loaded.*ttl= in the call"):
        await cache.set("row", loaded(1, ttl=3))
    assert await cache.get("row") is None


def test_the_error_of_a_value_speaks_of_caches() -> None:
    values = Values("deep", encoded=True, limit=10**6)

    text = re.escape(
        "the value of 'row' is not JSON: date has no JSON form (at value['at'][0]); "
        "keep its isoformat()"
    )
    with pytest.raises(EncodeError, match=f"^{text}$") as caught:
        values.encode("row", {"at": [date(2030, 1, 1)]})
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.asyncio
async def test_cached_is_given_its_key_by_name(cluster_factory: ClusterFactory) -> None:
    [cache, _] = await caches(cluster_factory)
    cached: Any = cache.cached

    for given, written in ((asyncio.sleep, "…"), ("rate:{currency}", "'rate:{currency}'")):
        text = re.escape(f"write @cache.cached(key={written}): the key is given by name")
        with pytest.raises(ConfigurationError, match=f"^{text}$"):
            cached(given)


@pytest.mark.asyncio
async def test_an_invalidation_after_a_commit_is_of_something(
    cluster_factory: ClusterFactory,
) -> None:
    [cache, _] = await caches(cluster_factory)

    with pytest.raises(ConfigurationError, match="needs a key or a tag"):
        await cache.invalidate_after_commit(object())


@pytest.mark.asyncio
async def test_what_the_store_was_told_is_told_to_all_although_the_call_failed(
    cluster_factory: ClusterFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = await caches(cluster_factory)
    await here.set("row", "old")
    engine = here._engine
    assert engine is not None
    assert engine.backplane is not None

    def overflow(*_: object) -> None:
        raise RecursionError

    with monkeypatch.context() as patch:
        patch.setattr(engine.local, "put", overflow)
        with pytest.raises(RecursionError):
            await here.set("row", "new")
        assert len(engine.backplane.unsent) == 1

    assert await here.get("row") == "new"


async def load_nothing() -> None: ...


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda c: c.wrap("k", int, tags=None), "tags are names"),
        (lambda c: c.set("k", 1, tags=None), "tags are names"),
        (lambda c: c.set("k", 1, tags=5), "tags are names"),
        (lambda c: c.invalidate_after_commit(None, tags="abc"), "tags are several"),
        (lambda c: c.mset([("k", 1)]), "mset"),
        (lambda c: c.mset("k"), "mset"),
        (lambda c: c.wrap("k", 5), "^fn "),
        (lambda c: c.wrap("k", load_nothing()), r"^fn .*: pass lambda: load_nothing\(…\), not "),
        (lambda c: c.wrap_with_condition("k", int, tags=5), "tags are names"),
        (lambda c: c.wrap_with_condition("k", int, is_cacheable=True), "^is_cacheable "),
        (lambda c: c.wrap_with_condition("k", int, use_cache="no"), "^use_cache "),
        (lambda c: c.wrap_with_condition("k", int, use_cache=0), "^use_cache "),
    ],
)
async def test_what_is_wrong_is_named(
    call: Callable[[Any], Awaitable[object]], named: str, cluster_factory: ClusterFactory
) -> None:
    [cluster] = await cluster_factory()

    with pytest.raises(ConfigurationError, match=named):
        await call(cluster.cache)

    assert await cluster.cache.get("k") is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"key": "user:{user_id"}, "^key 'user:{user_id' is no template"),
        ({"key": "user:user_id}"}, "^key 'user:user_id}' is no template"),
        ({"key": "user:{}"}, "^key 'user:{}' names ''"),
        ({"key": "user:{0}"}, "^key .* names '0'"),
        ({"key": "user:{user}"}, "^key .* names 'user', .* there are: user_id, width"),
        ({"key": "user:{user_id!x}"}, "^key .* conversion !x"),
        ({"key": "user:{user_id:{with}}"}, "^key .* names 'with'"),
        ({"key": 5}, "^key, "),
        ({"key": "k", "tags": ["{user}"]}, "^tags '{user}' names 'user'"),
        ({"key": "k", "tags": ["{"]}, "^tags '{' is no template"),
        ({"key": "k", "tags": [5]}, "^tags "),
        ({"key": "k", "tags": None}, "^tags "),
        ({"key": "k", "tags": "users"}, "^tags "),
    ],
    ids=str,
)
def test_what_cannot_decorate_is_named(values: dict[str, Any], named: str) -> None:
    async def read(user_id: int, width: int = 3) -> int:
        return user_id

    with pytest.raises(ConfigurationError, match=named):
        Cluster("shop").cache.cached(**values)(read)


@pytest.mark.asyncio
async def test_a_template_may_format(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()

    @cluster.cache.cached(key="{{{user_id:0{width}}}}-{name!r}")
    async def read(user_id: int, name: str, width: int = 3) -> int:
        return user_id

    assert await read(7, "ada") == 7
    assert await cluster.cache.get("{007}-'ada'") == 7


@pytest.mark.asyncio
async def test_a_time_limit_around_a_function_that_is_only_called_is_heard_of(
    cluster_factory: ClusterFactory,
) -> None:
    [cache, _] = await caches(cluster_factory)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.wrap_with_condition("row", lambda: time.sleep(0.1), use_cache=False)


@pytest.mark.asyncio
async def test_a_cache_that_is_there_with_other_options_names_them(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    made = await cluster.caches.create_cache("users", ttl=60)

    with pytest.raises(ConfigurationError, match="a cache 'users' with another ttl, copy"):
        await cluster.caches.create_cache("users", ttl=61, copy="none")
    assert cluster.caches.get_cache("users") is made
    with pytest.raises(ConfigurationError, match=r"no cache 'nope'; make it with create_cache$"):
        cluster.caches.get_cache("nope")
    with pytest.raises(ConfigurationError, match=r"no cache 'userz'; did you mean 'users'\?$"):
        cluster.caches.get_cache("userz")


@pytest.mark.parametrize("name", [None, 5, b"rows", [], {}, set[str]()])
def test_what_is_no_name_of_a_cache_is_named(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^name is that of a cache, not "):
        Cluster("shop").caches.get_cache(name)
