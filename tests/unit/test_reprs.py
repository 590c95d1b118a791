"""What objects look like in a debugger and in logs: short, and without secrets."""

from __future__ import annotations

import pytest

from cluster_kit import Cluster, Settings


@pytest.mark.asyncio
async def test_what_users_have_in_hand_says_what_it_is() -> None:
    settings = Settings(
        redis_url="redis://shop:hidden-word@r/",
        event_queue={"url": "memory://"},
        locks={"url": "memory://"},
        cache={"url": "memory://"},
        instance_id="one",
    )
    async with Cluster("shop", settings=settings) as cluster:
        users = await cluster.caches.create_cache("users")
        limit, few = cluster.locks.rate_limit("mails", 100, 60), cluster.locks.semaphore("jobs", 3)
        async with cluster.locks.multi(["b", "a"]) as lease:
            assert repr(lease) == "<MultiLease 'a', 'b' held>"
        assert repr(lease) == "<MultiLease 'a', 'b' released>"

        assert repr(cluster) == "Cluster('shop', instance_id='one')"
        assert [repr(users), repr(cluster.cache)] == ["Cache('users')", "Cache('shop')"]
        assert [repr(limit), repr(few)] == ["RateLimit('mails', 100, 60)", "Semaphore('jobs', 3)"]
