"""What an adapter's author tells the contract: where its server is, and what it cannot do."""

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

    link_faults: bool = True
    """An instance can be cut off from the server and let back: `Environment.cut_off`."""

    frozen_link: bool = True
    """An instance's link can swallow everything while it looks alive: `Environment.freeze`."""

    dropped_answers: bool = True
    """Its requests arrive and their answers do not: `Environment.drop_answers`."""

    loss: bool = True
    """What the server keeps can be made to vanish: `Environment.forget`."""

    strict_fence: bool = True
    """A fence grows with every grant as long as the server keeps its data."""

    fair: bool = True
    """Waiters of all instances are served in the order in which they began to wait."""

    short_ttl: bool = True
    """A ttl may be half a second."""

    unheard: bool = True
    """A lock is its holder's for its ttl although the server hears nothing of the holder."""

    holder_named: bool = True
    """The server tells every instance who holds a lock."""


class Environment:
    """A server, and an author's hands on it, for the time of one scenario.

    Implement `url` and whatever the `Features` do not rule out.
    """

    async def url(self, index: int) -> str:
        """Return the URL for the scenario's instance number `index`, from 0.

        For `cut_off` and its like each instance needs a link of its own.
        """
        raise NotImplementedError

    def prepare(self, cluster: Cluster) -> None:
        """Do what is to be done to `cluster` before its start, such as registering an adapter."""

    async def cut_off(self, cluster: Cluster) -> None:
        """Break every connection of `cluster` and let no new one through until `reconnect`."""
        raise NotImplementedError

    async def freeze(self, cluster: Cluster) -> None:
        """Let nothing pass between `cluster` and the server, without closing a connection."""
        raise NotImplementedError

    async def drop_answers(self, cluster: Cluster) -> None:
        """Let requests of `cluster` through and keep the answers, until `reconnect`."""
        raise NotImplementedError

    async def reconnect(self, cluster: Cluster) -> None:
        """End every fault; what was held back is lost with its connections."""
        raise NotImplementedError

    async def forget(self) -> None:
        """Make the server forget everything, as after a restart without its data."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything. Clusters are stopped by then."""
