"""What an adapter's author tells the contract: where its broker is, and what it cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cluster_kit.testing.contracts.common import BaseEnvironment, BaseFeatures

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.settings.model import Capability


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(BaseFeatures):
    """What an adapter and its environment can do. Scenarios that need more are not run."""

    ephemeral: bool = True
    """It has a transport on which messages pass by an instance that is cut off."""

    sticky: bool = True
    """It keeps messages for an instance that is cut off."""

    stream: bool = True
    """It keeps messages for everybody, and an instance reads on where it was."""

    retention: bool = True
    """What is kept for an instance can be made to vanish: `Environment.forget`."""

    foreign_messages: bool = True
    """A body the library did not encode can be sent on a channel: `Environment.put`."""


class Environment(BaseEnvironment):
    """A broker, and an author's hands on it, for the time of one scenario.

    Implement `url` and whatever the `Features` do not rule out.
    """

    capability: ClassVar[Capability] = "pubsub"

    async def forget(self, cluster: Cluster) -> None:
        """Drop at the broker what is kept for `cluster`, which is cut off."""
        raise NotImplementedError

    async def put(self, app: str, channel: str, body: bytes) -> None:
        """Send `body` on a channel of `pubsub`, as any program might, without any metadata."""
        raise NotImplementedError
