"""What an adapter's author tells the contract: where its broker is, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from cluster_kit.testing.contracts.common import BaseEnvironment, BaseFeatures

if TYPE_CHECKING:
    from cluster_kit.settings.model import Capability


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(BaseFeatures):
    """What an adapter and its environment can do. Scenarios that need more are not run."""

    several_instances: bool = True
    """Instances with the same app share their queues."""

    delays: bool = True
    """A task can wait in the broker, and shorter delays overtake longer ones."""

    ttl: bool = True
    """The broker itself buries a task that waits too long for a consumer."""

    ttl_after_delay: bool = True
    """It does so also after a delay, or a delayed retry, and not only when a worker takes it."""

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


class Environment(BaseEnvironment):
    """A broker, and an author's hands on it, for the time of one scenario.

    Implement `url` and whatever the `Features` do not rule out.
    """

    capability: ClassVar[Capability] = "event_queue"

    async def put(self, queue: str, message: ForeignMessage) -> None:
        """Put `message` into the existing work queue with this full name."""
        raise NotImplementedError
