"""What an author tells the contract: where the store is, how a cache is composed, what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cluster_kit.testing.contracts.common import BaseEnvironment, BaseFeatures

if TYPE_CHECKING:
    from cluster_kit.cache.options import CacheValues
    from cluster_kit.settings.model import Capability


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(BaseFeatures):
    """What a store and its environment can do. Scenarios that need more are not run."""

    shared: bool = True
    """Instances see each other's values: there is a store they share."""

    told: bool = True
    """Instances hear of each other's invalidations, by the store or a backplane."""

    short_ttl: bool = True
    """Counters end within a tenth of a second after their ttl."""

    lists_keys: bool = True
    """It can tell which keys there are."""

    raw: bool = True
    """Bytes can be put where a cache keeps a value: `Environment.put`."""


class Environment(BaseEnvironment):
    """A store, and an author's hands on it, for the time of one scenario.

    Implement `url` and whatever the `Features` do not rule out.

    Attributes:
        options: by which every cache of the contract is made.
    """

    capability: ClassVar[Capability] = "cache"
    options: ClassVar[CacheValues] = {}

    def pubsub_url(self) -> str | None:
        """Return where instances tell each other; None for a memory hub of theirs."""
        return None

    async def put(self, key: str, body: bytes) -> None:
        """Put `body` under a key of the store, as any program might."""
        raise NotImplementedError
