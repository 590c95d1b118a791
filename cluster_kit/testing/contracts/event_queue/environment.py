"""What an adapter's author tells the contract: where its broker is, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What an adapter and its environment can do. Scenarios that need more are not run.

    Every flag that is False weakens what the adapter may promise; the run's summary lists them.
    """

    several_instances: bool = True
    """Instances with the same app share their queues."""

    delays: bool = True
    """A task can wait in the broker, and shorter delays overtake longer ones."""

    ttl: bool = True
    """The broker itself buries a task that waits too long for a consumer."""

    link_faults: bool = True
    """An instance can be cut off from the broker and let back: `Environment.cut_off`."""

    frozen_link: bool = True
    """An instance's link can swallow everything while it looks alive: `Environment.freeze`."""

    foreign_messages: bool = True
    """A body the library did not encode can be put in a queue: `Environment.put`."""

    foreign_metadata: bool = True
    """Such a message may carry ``ck-`` headers of its own, true or false ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignMessage:
    """A message as any program might publish it, knowing nothing of this library."""

    body: bytes
    content_type: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict[str, object])
    message_id: str | None = None


class Environment:
    """A broker, and an author's hands on it, for the time of one scenario.

    Implement `url` and whatever the `Features` do not rule out.
    """

    async def url(self, index: int) -> str:
        """Return the URL for the scenario's instance number `index`, from 0.

        For `cut_off` and `freeze` each instance needs a link of its own.
        """
        raise NotImplementedError

    def prepare(self, cluster: Cluster) -> None:
        """Do what is to be done to `cluster` before its start, such as registering an adapter."""

    async def cut_off(self, cluster: Cluster) -> None:
        """Break every connection of `cluster` and let no new one through until `reconnect`.

        The broker must see them end.
        """
        raise NotImplementedError

    async def freeze(self, cluster: Cluster) -> None:
        """Let nothing pass between `cluster` and the broker, without closing a connection."""
        raise NotImplementedError

    async def reconnect(self, cluster: Cluster) -> None:
        """End `cut_off` and `freeze`."""
        raise NotImplementedError

    async def put(self, queue: str, message: ForeignMessage) -> None:
        """Put `message` into the existing work queue with this full name."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything. Clusters are stopped by then."""
