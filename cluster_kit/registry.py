"""Finds adapters by entry point and makes them by URL."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal, overload

from cluster_kit.errors import (
    AdapterNotFoundError,
    AdapterUnavailableError,
    ClusterKitError,
    ConfigurationError,
)
from cluster_kit.ports import (
    AdapterSpec,
    CacheStore,
    EventQueueAdapter,
    LockAdapter,
    PubSubAdapter,
    TransactionAdapter,
)
from cluster_kit.urls import url_scheme

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from cluster_kit.ports import AdapterContext

GROUP = "cluster_kit.adapters"
"""Entry-point group in which a distribution names its `AdapterSpec`."""

_PORTS = {
    "event_queue": EventQueueAdapter,
    "pubsub": PubSubAdapter,
    "locks": LockAdapter,
    "cache": CacheStore,
}


class AdapterRegistry:
    """Adapters by URL scheme.

    The library's own come through the entry-point group, as anybody's would. One that cannot be
    imported, or is none, is remembered with the reason and harms nobody until its scheme is asked
    for.
    """

    def __init__(self) -> None:
        self._specs: dict[str, AdapterSpec] = {}
        self._broken: dict[str, AdapterUnavailableError] = {}
        self._transactions: dict[AdapterSpec, TransactionAdapter] = {}
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
            try:
                spec = entry.load()
            except Exception as exc:  # noqa: BLE001 - foreign code; told when somebody asks for it
                self._broken[entry.name] = _unavailable(entry, exc)
                continue
            if not isinstance(spec, AdapterSpec):
                missing = f"an AdapterSpec at {entry.value}, where a {type(spec).__name__} is"
                self._broken[entry.name] = AdapterUnavailableError(entry.name, missing, "")
            elif taken := self._taken(spec):
                missing = f"schemes of its own: {taken}"
                self._broken[entry.name] = AdapterUnavailableError(entry.name, missing, "")
            else:
                self._specs[spec.name] = spec

    def register(self, spec: AdapterSpec) -> None:
        """Add an adapter, or replace the one of the same name.

        Raises:
            ConfigurationError: it is no `AdapterSpec`, or an adapter of another name has one of
                its schemes.
        """
        _check_spec(spec)
        if taken := self._taken(spec):
            raise ConfigurationError(
                f"adapter {spec.name!r}: {taken}; to replace it, take its name"
            )
        self._specs[spec.name] = spec

    def _taken(self, spec: AdapterSpec) -> str:
        """Say which other adapter has a scheme of `spec`; nothing when none has."""
        for other in self._specs.values():
            for scheme in spec.schemes:
                if scheme in other.schemes and other.name != spec.name:
                    return f"{scheme}:// is that of adapter {other.name!r}"
        return ""

    def names(self) -> list[str]:
        """Return the names of all adapters, sorted."""
        return sorted(self._specs)

    def specs(self) -> list[AdapterSpec]:
        """Return all adapters, sorted by name."""
        return [self._specs[name] for name in self.names()]

    def unavailable(self) -> list[AdapterUnavailableError]:
        """Return why adapters that are installed cannot be used, sorted by name."""
        return [self._broken[name] for name in sorted(self._broken)]

    def find(self, url: str) -> AdapterSpec:
        """Return the adapter that serves `url`.

        Raises:
            ConfigurationError: `url` has no scheme.
            AdapterNotFoundError: no adapter serves its scheme.
            AdapterUnavailableError: the one that might cannot be imported.
        """
        scheme = url_scheme(url)
        if not scheme:
            # Not shown: without a scheme nobody can tell where its password is.
            raise ConfigurationError("this is no URL: expected scheme://…")
        for spec in self._specs.values():
            if scheme in spec.schemes:
                return spec
        if (broken := self._broken.get(scheme)) is not None:
            raise broken
        known = [known for spec in self._specs.values() for known in spec.schemes]
        raise AdapterNotFoundError(scheme, known, self.unavailable())

    @overload
    def create(
        self, capability: Literal["event_queue"], url: str, context: AdapterContext
    ) -> EventQueueAdapter: ...
    @overload
    def create(
        self, capability: Literal["pubsub"], url: str, context: AdapterContext
    ) -> PubSubAdapter: ...
    @overload
    def create(
        self, capability: Literal["locks"], url: str, context: AdapterContext
    ) -> LockAdapter: ...
    @overload
    def create(
        self, capability: Literal["cache"], url: str, context: AdapterContext
    ) -> CacheStore: ...
    @overload
    def create(
        self, capability: str, url: str, context: AdapterContext
    ) -> EventQueueAdapter | PubSubAdapter | LockAdapter | CacheStore: ...
    def create(
        self, capability: str, url: str, context: AdapterContext
    ) -> EventQueueAdapter | PubSubAdapter | LockAdapter | CacheStore:
        """Make the adapter of a capability for `url`.

        Capabilities are ``event_queue``, ``pubsub``, ``locks`` and ``cache``.

        Raises:
            ConfigurationError: as `find`; or the adapter lacks this capability, fails to make it
                or makes something else; or an option of the URL is wrong.
            AdapterUnavailableError: its driver is not installed.
        """
        spec = self.find(url)
        factory = spec.factories().get(capability)
        if factory is None:
            able = [each for each in self.specs() if each.factories().get(capability)]
            urls = ", ".join(f"{scheme}://" for each in able for scheme in each.schemes)
            hint = f"; take one of {urls}" if urls else ""
            raise ConfigurationError(f"adapter {spec.name!r} has no {capability}{hint}")
        try:
            made = factory(url, context)
        except ImportError as exc:
            cause = exc.with_traceback(None)  # its frames have the URL as it is, and say no more
            raise AdapterUnavailableError(spec.name, _missing(exc), spec.install) from cause
        except ClusterKitError:
            raise
        except Exception as exc:
            text = f"adapter {spec.name!r} failed to make {capability}: {type(exc).__name__}: {exc}"
            raise ConfigurationError(text) from exc
        if lacking := _lacking(made, _PORTS[capability]):
            text = f"adapter {spec.name!r} made no {capability}, but {type(made).__name__}"
            raise ConfigurationError(f"{text} without {', '.join(lacking)}")
        return made

    def transactions(self, transaction: object) -> TransactionAdapter | None:
        """Return the adapter that knows when `transaction` is committed; None when none does.

        Raises:
            AdapterUnavailableError: there is one, but something it needs is not installed.
        """
        packages = {kind.__module__.partition(".")[0] for kind in type(transaction).__mro__}
        for spec in reversed(self._specs.values()):
            if spec.transactions is None or spec.transactions.package not in packages:
                continue
            if spec not in self._transactions:
                try:
                    self._transactions[spec] = spec.transactions.load()
                except ImportError as exc:
                    raise AdapterUnavailableError(spec.name, _missing(exc), spec.install) from exc
            if self._transactions[spec].knows(transaction):
                return self._transactions[spec]
        return None


def _check_spec(spec: object) -> None:
    if not isinstance(spec, AdapterSpec):
        raise ConfigurationError(f"register takes an AdapterSpec, not {type(spec).__name__}")


def _lacking(made: object, port: type) -> list[str]:
    """Return the names in `port` of what `made` has not; no property is asked for its value."""
    public = [name for name in vars(port) if not name.startswith("_")]
    return [each for each in public if not (hasattr(type(made), each) or hasattr(made, each))]


def _unavailable(entry: EntryPoint, error: Exception) -> AdapterUnavailableError:
    # Installing again what names the adapter brings the packages it requires.
    install = f"pip install {entry.dist.name}" if entry.dist is not None else ""
    unavailable = AdapterUnavailableError(entry.name, _missing(error), install)
    unavailable.__cause__ = error
    return unavailable


def _missing(error: Exception) -> str:
    """Return what keeps an adapter from being used: most often the name of a package."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name}"
    return f"a working import ({type(error).__name__}: {error})"
