"""What an adapter's author tells any contract: where the server is, and what cannot be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.selection import ContractFeatures

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.settings.model import Capability


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFeatures(ContractFeatures):
    """What an adapter and its environment can do. Scenarios that need more are not run.

    Every flag that is False weakens what the adapter may promise; the run's summary lists them.
    """

    link_faults: bool = True
    """An instance can be cut off from the server and let back: `Environment.cut_off`."""


class BaseEnvironment:
    """A server, and an author's hands on it, for the time of one scenario.

    Implement `url` and whatever the `Features` do not rule out.

    Attributes:
        capability: the one under test.
    """

    capability: ClassVar[Capability]

    async def url(self, index: int) -> str:
        """Return the URL for the scenario's instance number `index`, from 0.

        For `cut_off` and other faults each instance needs a link of its own.
        """
        raise NotImplementedError

    def prepare(self, cluster: Cluster) -> None:
        """Do what is to be done to `cluster` before its start, such as registering an adapter."""

    async def cut_off(self, cluster: Cluster) -> None:
        """Break every connection of `cluster` and let no new one through until `reconnect`.

        The server must see them end.
        """
        raise NotImplementedError

    async def freeze(self, cluster: Cluster) -> None:
        """Let nothing pass between `cluster` and the server, without closing a connection."""
        raise NotImplementedError

    async def reconnect(self, cluster: Cluster) -> None:
        """End every fault of the link."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything. Clusters are stopped by then."""


class ProxiedEnvironment(BaseEnvironment):
    """A server that each instance reaches through a `FaultProxy` of its own.

    Name it before the contract's `Environment`:
    ``class MyEnvironment(ProxiedEnvironment, Environment)``.

    Attributes:
        server_url: of the server itself.
    """

    def __init__(self, server_url: str) -> None:
        self.server_url: str = server_url
        self._proxies: dict[str, FaultProxy] = {}

    async def url(self, index: int) -> str:  # noqa: ARG002 - each has another
        """Return the URL of one more proxy."""
        proxy = FaultProxy(self.server_url)
        await proxy.start()
        self._proxies[proxy.url] = proxy
        return proxy.url

    def proxy(self, cluster: Cluster) -> FaultProxy:
        """Return the proxy of an instance."""
        return self._proxies[cluster.settings.url_for(self.capability).reveal()]

    async def cut_off(self, cluster: Cluster) -> None:
        """Reset its connections and refuse new ones."""
        self.proxy(cluster).refuse()

    async def freeze(self, cluster: Cluster) -> None:
        """Keep every byte back."""
        self.proxy(cluster).freeze()

    async def reconnect(self, cluster: Cluster) -> None:
        """Pass bytes and connections on again."""
        self.proxy(cluster).resume()

    async def close(self) -> None:
        """Close the proxies."""
        for proxy in self._proxies.values():
            await proxy.close()
