from __future__ import annotations

from typing import TYPE_CHECKING

import aiormq
import pytest

from cluster_kit.testing.contracts.locks import Environment, Features, LockContract
from cluster_kit.testing.proxy import FaultProxy

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster

HEARTBEAT = 1  # seconds, for scenarios that wait until the broker takes a holder for dead


class AmqpEnvironment(Environment):
    """A RabbitMQ; each instance reaches it through a proxy of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._proxies: dict[str, FaultProxy] = {}
        self._apps: set[str] = set()

    async def url(self, index: int) -> str:
        proxy = FaultProxy(self._url)
        await proxy.start()
        self._proxies[url := f"{proxy.url}?heartbeat={HEARTBEAT}"] = proxy
        return url

    def prepare(self, cluster: Cluster) -> None:
        self._apps.add(cluster.name)

    def _proxy(self, cluster: Cluster) -> FaultProxy:
        return self._proxies[cluster.settings.url_for("locks").reveal()]

    async def cut_off(self, cluster: Cluster) -> None:
        self._proxy(cluster).refuse()

    async def freeze(self, cluster: Cluster) -> None:
        self._proxy(cluster).freeze()

    async def reconnect(self, cluster: Cluster) -> None:
        proxy = self._proxy(cluster)
        proxy.cut()
        proxy.resume()

    async def forget(self) -> None:
        connection = await aiormq.connect(self._url)
        channel = await connection.channel()
        for app in self._apps:
            await channel.queue_delete(f"ck.v1.lock.{app}.schema")
        await connection.close()

    async def close(self) -> None:
        for proxy in self._proxies.values():
            await proxy.close()


class TestAmqpLocks(LockContract):
    features = Features(
        unheard=False,  # a lock lives and dies with a connection
        holder_named=False,
        dropped_answers=False,  # what is unanswered is undone with the connection
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return AmqpEnvironment(request.getfixturevalue("contract_vhost"))
