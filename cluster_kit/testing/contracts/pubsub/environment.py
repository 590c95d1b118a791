"""What an adapter's author tells the contract: where its broker is, and what it cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What an adapter and its environment can do. Scenarios that need more are not run.

    Every flag that is False weakens what the adapter may promise; the run's summary lists them.
    """

    ephemeral: bool = True
    """It has a transport on which messages pass by an instance that is cut off."""

    sticky: bool = True
    """It keeps messages for an instance that is cut off."""

    stream: bool = True
    """It keeps messages for everybody, and an instance reads on where it was."""

    link_faults: bool = True
    """An instance can be cut off from the broker and let back: `Environment.cut_off`."""

    retention: bool = True
    """What is kept for an instance can be made to vanish: `Environment.forget`."""

    foreign_messages: bool = True
    """A body the library did not encode can be sent on a channel: `Environment.put`."""


class Environment:
    """A broker, and an author's hands on it, for the time of one scenario.

    Implement `url` and whatever the `Features` do not rule out.
    """

    async def url(self, index: int) -> str:
        """Return the URL for the scenario's instance number `index`, from 0.

        For `cut_off` each instance needs a link of its own.
        """
        raise NotImplementedError

    def prepare(self, cluster: Cluster) -> None:
        """Do what is to be done to `cluster` before its start, such as registering an adapter."""

    async def cut_off(self, cluster: Cluster) -> None:
        """Break every connection of `cluster` and let no new one through until `reconnect`.

        The broker must see them end.
        """
        raise NotImplementedError

    async def reconnect(self, cluster: Cluster) -> None:
        """End `cut_off`."""
        raise NotImplementedError

    async def forget(self, cluster: Cluster) -> None:
        """Drop at the broker what is kept for `cluster`, which is cut off."""
        raise NotImplementedError

    async def put(self, app: str, channel: str, body: bytes) -> None:
        """Send `body` on a channel of `pubsub`, as any program might, without any metadata."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything. Clusters are stopped by then."""
