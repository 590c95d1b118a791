"""What an adapter's author tells the contract: where its server is, and what it cannot do."""

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

    rate_limits: bool = True
    """The backend counts for rate limits."""

    holder_named: bool = True
    """The server tells every instance who holds a lock."""


class Environment(BaseEnvironment):
    """A server, and an author's hands on it, for the time of one scenario.

    Implement `url` and whatever the `Features` do not rule out. What `reconnect` ends, `freeze`
    and `drop_answers` included, is lost with its connections.
    """

    capability: ClassVar[Capability] = "locks"

    async def drop_answers(self, cluster: Cluster) -> None:
        """Let requests of `cluster` through and keep the answers, until `reconnect`."""
        raise NotImplementedError

    async def forget(self) -> None:
        """Make the server forget everything, as after a restart without its data."""
        raise NotImplementedError
