"""What an adapter's distribution tells about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from cluster_kit.ports.cache import CacheFactory
    from cluster_kit.ports.event_queue import EventQueueFactory
    from cluster_kit.ports.locks import LockFactory
    from cluster_kit.ports.pubsub import PubSubFactory
    from cluster_kit.ports.transactions import TransactionSupport

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


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
        schemes: URL schemes that choose it, in lower case and without ``://``; none when no URL
            does.
        event_queue: makes an event queue adapter; None when it has none.
        pubsub: makes a publish-subscribe adapter; None when it has none.
        locks: makes a lock adapter; None when it has none.
        cache: makes a cache store; None when it has none.
        transactions: of a database library, for publishing after a commit; None when it has none.
        drivers: packages it needs.
        install: what to type when one is missing.

    Raises:
        ConfigurationError: a name, a scheme or a factory cannot be one.
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

    def __post_init__(self) -> None:
        _check_name(self.name, self.schemes)
        for scheme in self.schemes:
            _check_scheme(self.name, scheme)
        for capability, factory in self.factories().items():
            _check_factory(self.name, capability, factory)

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


def _check_name(name: object, schemes: object) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"an adapter's name is a text, not {name!r}")
    if not isinstance(schemes, tuple):
        text = f"adapter {name!r}: schemes is a tuple, as in ('files',), not {schemes!r}"
        raise ConfigurationError(text)


def _check_scheme(name: str, scheme: object) -> None:
    if isinstance(scheme, str) and _SCHEME.fullmatch(scheme):
        return
    bare = scheme.partition(":")[0].lower() if isinstance(scheme, str) else ""
    hint = f"; did you mean {bare!r}?" if _SCHEME.fullmatch(bare) else ""
    raise ConfigurationError(f"adapter {name!r}: {scheme!r} is no URL scheme{hint}")


def _check_factory(name: str, capability: str, factory: object) -> None:
    if factory is not None and not callable(factory):
        kind = type(factory).__name__
        raise ConfigurationError(f"adapter {name!r}: {capability} is no function, but {kind}")
