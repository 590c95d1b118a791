"""The cache store of an instance, on a hub it may share with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.errors import CacheUnavailable
from cluster_kit.ports import Health, StoreCapabilities
from cluster_kit_memory.cache_table import TABLES, CacheTable
from cluster_kit_memory.options import parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster_kit.ports import AdapterContext

_ADAPTER = "memory"
_PURPOSE = "cache"

CAPABILITIES = StoreCapabilities(backend="memory", scope="process")


class MemoryCacheStore:
    """A `CacheStore` on a hub of this process.

    Stores that are connected to one hub have the same values. `disconnect` and `reconnect` stand
    for a link that breaks: in between everything is `CacheUnavailable`.

    Args:
        url: see `cluster_kit_memory.options`; its ``path`` concerns the event queue only.
        context: of the instance.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._options = parse_url(url)
        self._context = context
        self._table: CacheTable | None = None
        self._linked = False
        self._since = context.clock.wall()

    @property
    def capabilities(self) -> StoreCapabilities:
        """What it promises."""
        return CAPABILITIES

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Join the hub."""
        if self._table is None:
            self._table = TABLES.enter(self._options.hub, self._context.clock)
            self.reconnect()

    async def close(self) -> None:
        """Leave the hub. What is stored stays as long as somebody else is there."""
        table, self._table = self._table, None
        if table is not None:
            self._linked = False
            self._since = self._context.clock.wall()
            TABLES.leave(table)

    def disconnect(self, reason: str = "cut by a test") -> None:
        """Break the link of this instance, as when its connection to a server is lost."""
        if self._linked:
            self._linked = False
            self._since = self._context.clock.wall()
            self._context.emit("connection.lost", adapter=_ADAPTER, purpose=_PURPOSE, reason=reason)

    def reconnect(self) -> None:
        """Mend the link. Idempotent."""
        if not self._linked and self._table is not None:
            self._linked = True
            self._since = self._context.clock.wall()
            self._context.emit(
                "connection.up", adapter=_ADAPTER, purpose=_PURPOSE, url=self._options.url
            )

    def health(self) -> Health:
        """Return `down` without a link, else `ok`."""
        hub = f"hub {self._options.hub!r}"
        if not self._linked:
            return Health(status="down", detail=f"not connected to {hub}", since=self._since)
        return Health(status="ok", detail=hub, since=self._since)

    # --- values ----------------------------------------------------------------------------------

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:  # noqa: ARG002 - the port's
        """Return values."""
        return list(map(self._ready().find, keys))

    async def write(
        self,
        items: Mapping[str, bytes],
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,  # noqa: ARG002 - the port's
    ) -> list[bytes | None]:
        """Store values, then read."""
        table = self._ready()
        for key, body in items.items():
            table.put(key, body, ttl)
        return list(map(table.find, then_read))

    async def swap(
        self,
        key: str,
        body: bytes | None,
        *,
        expected: bytes | None,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,  # noqa: ARG002 - the port's
    ) -> tuple[bool, list[bytes | None]]:
        """Store a value over what is expected, then read."""
        table = self._ready()
        return table.swap(key, body, expected, ttl), list(map(table.find, then_read))

    async def renew(
        self,
        keys: Sequence[str],
        make: Callable[[], bytes],
        *,
        present: bool,
        ttl: float | None,
        timeout: float,  # noqa: ARG002 - the port's
    ) -> list[bytes | None]:
        """Give keys values there never were."""
        table = self._ready()
        return [table.renew(key, make(), ttl, present=present) for key in keys]

    async def remove(
        self,
        keys: Sequence[str],
        *,
        once: bool = False,  # noqa: ARG002 - nothing is repeated here
        timeout: float,  # noqa: ARG002 - the port's
    ) -> list[bytes | None]:
        """Remove values."""
        return list(map(self._ready().take, keys))

    async def increment(
        self,
        key: str,
        amount: int,
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,  # noqa: ARG002 - the port's
    ) -> tuple[int, list[bytes | None]]:
        """Add to a counter, then read."""
        table = self._ready()
        return table.add(key, amount, ttl), list(map(table.find, then_read))

    async def keys(self, prefix: str, *, timeout: float) -> list[str]:  # noqa: ARG002 - the port's
        """Return keys."""
        return self._ready().keys(prefix)

    def _ready(self) -> CacheTable:
        if self._table is None or not self._linked:
            raise CacheUnavailable("", f"not connected to hub {self._options.hub!r}")
        return self._table
