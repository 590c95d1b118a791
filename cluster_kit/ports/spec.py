"""What an adapter's distribution tells about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.ports.cache import CacheFactory
    from cluster_kit.ports.event_queue import EventQueueFactory
    from cluster_kit.ports.locks import LockFactory
    from cluster_kit.ports.pubsub import PubSubFactory
    from cluster_kit.ports.transactions import TransactionSupport


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A package an adapter cannot do without.

    Attributes:
        package: as it is imported; a top one.
        schemes: that need it; all when empty.
    """

    package: str
    schemes: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether it can be found. It is not imported."""
        return find_spec(self.package) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    """What an entry point of the group ``cluster_kit.adapters`` names.

    Factories import their driver when called, not before, so that listing adapters is cheap.

    Attributes:
        name: of the adapter.
        schemes: URL schemes that choose it; none when no URL does.
        event_queue: makes an event queue adapter; None when it has none.
        pubsub: makes a publish-subscribe adapter; None when it has none.
        locks: makes a lock adapter; None when it has none.
        cache: makes a cache store; None when it has none.
        transactions: of a database library, for publishing after a commit; None when it has none.
        drivers: packages it needs.
        install: what to type when one is missing.
    """

    name: str
    schemes: tuple[str, ...]
    event_queue: EventQueueFactory | None = None
    pubsub: PubSubFactory | None = None
    locks: LockFactory | None = None
    cache: CacheFactory | None = None
    transactions: TransactionSupport | None = None
    drivers: tuple[Driver, ...] = ()
    install: str = ""

    def factories(
        self,
    ) -> Mapping[str, EventQueueFactory | PubSubFactory | LockFactory | CacheFactory | None]:
        """Return the factory of each capability that is made by URL; None where it has none."""
        return {
            "event_queue": self.event_queue,
            "pubsub": self.pubsub,
            "locks": self.locks,
            "cache": self.cache,
        }

    def offers(self) -> list[str]:
        """Return the names of what it has."""
        made = [name for name, factory in self.factories().items() if factory is not None]
        return made if self.transactions is None else [*made, "transactions"]

    def missing(self) -> list[Driver]:
        """Return the drivers that are not installed."""
        return [driver for driver in self.drivers if not driver.installed]

    def usable_schemes(self) -> list[str]:
        """Return the schemes whose drivers are installed."""
        lost = {scheme for driver in self.missing() for scheme in driver.schemes or self.schemes}
        return [scheme for scheme in self.schemes if scheme not in lost]
