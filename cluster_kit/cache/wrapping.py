"""Values that are loaded when there is none."""

from __future__ import annotations

import os
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import WeakSet

from cluster_kit.cache.loaders import Request, call_at_once, check_callable
from cluster_kit.cache.options import check_key, check_tags, check_ttl
from cluster_kit.checks import truth
from cluster_kit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from cluster_kit.cache.engine import Engine
    from cluster_kit.cache.local import Entry
    from cluster_kit.cache.options import CacheOptions
    from cluster_kit.cache.stats import CacheStats
    from cluster_kit.clock import Clock, Duration

T = TypeVar("T")


class Wrapping:
    """What `Cache` has around functions; base of it."""

    def __init__(
        self,
        options: CacheOptions,
        clock: Clock,
        stats: CacheStats,
        ready: Callable[[], Awaitable[Engine]],
    ) -> None:
        self._options = options
        self._monotonic = clock.monotonic
        self._ready = ready
        self._engine: Engine | None = None
        self._trouble: list[str] = []  # why there is none
        self._thread: int = 0  # whose loop it works on; none's in a forked process
        self._hot: Mapping[str, Entry] = {}  # empty while what is held here has to be doubted
        self._quick_hits: int = 0
        self._stats = stats
        _caches.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """Its name."""
        return self._options.name

    @property
    def counted(self) -> CacheStats:
        """What its parts count in."""
        return self._stats

    @property
    def options(self) -> CacheOptions:
        """What it was made with."""
        return self._options

    # --- loading -------------------------------------------------------------------------

    @overload
    async def wrap(
        self,
        key: str,
        fn: Callable[[], Awaitable[T]],
        *,
        ttl: Duration | None = ...,
        tags: Iterable[str] = ...,
    ) -> T: ...
    @overload
    async def wrap(
        self,
        key: str,
        fn: Callable[[], T],
        *,
        ttl: Duration | None = ...,
        tags: Iterable[str] = ...,
    ) -> T: ...
    async def wrap(
        self,
        key: str,
        fn: Callable[[], object],
        *,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
    ) -> object:
        """Return the value of a key; when there is none, the one that `fn()` returns.

        However many ask, here and in other instances with the same store, it is loaded once.
        What was invalidated while it was loaded is returned to those who had asked before, and
        not kept.

        Args:
            key: of the value.
            fn: loads it: async, or sync, then in a thread. What it returns by `loaded` says more.
            ttl: of the value; None leaves it to the cache.
            tags: that will invalidate it.

        Raises:
            CacheLoadTimeout: it took longer than the cache's `hard_timeout`; `fn` goes on.
            CacheRecursion: it is `fn` itself that asks, or a task it has started.
            EncodeError, MessageTooLargeError: what was loaded cannot be kept.
            TopologyError: as every call, see `Cache`.
            Exception: what `fn` raised, to all who wait for it.
        """
        if ttl is None and tags == ():
            entry = self._hot.get(key) if type(key) is str else None
            if (
                entry is not None
                and entry.until > self._monotonic() < entry.eager
                and get_ident() == self._thread
            ):
                entry.used = True
                self._quick_hits += 1
                return entry.copy()
        check_callable("fn", fn)
        request = Request(load=fn, ttl=check_ttl("ttl", ttl), tags=check_tags(tags))
        checked = check_key(key)
        return await (await self._open()).loading.get(checked, request)

    @overload
    async def wrap_with_condition(
        self,
        key: str,
        fn: Callable[[], Awaitable[T]],
        *,
        use_cache: bool | None = ...,
        is_cacheable: Callable[[T], object] | None = ...,
        ttl: Duration | None = ...,
        tags: Iterable[str] = ...,
    ) -> T: ...
    @overload
    async def wrap_with_condition(
        self,
        key: str,
        fn: Callable[[], T],
        *,
        use_cache: bool | None = ...,
        is_cacheable: Callable[[T], object] | None = ...,
        ttl: Duration | None = ...,
        tags: Iterable[str] = ...,
    ) -> T: ...
    async def wrap_with_condition(
        self,
        key: str,
        fn: Callable[[], object],
        *,
        use_cache: bool | None = None,
        is_cacheable: Callable[[Any], object] | None = None,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
    ) -> object:
        """Return the value of a key as `wrap` does, and keep it under a condition.

        Args:
            key: of the value.
            fn: loads it.
            use_cache: False calls `fn` alone, and looks for and keeps nothing.
            is_cacheable: of a loaded value: whether to keep it; async, or sync, then in a thread.
            ttl: of the value.
            tags: that will invalidate it.

        Raises:
            Exception: as `wrap`, and what `is_cacheable` raised.
        """
        check_callable("fn", fn)
        if is_cacheable is not None:
            check_callable("is_cacheable", is_cacheable)
        if use_cache is not None:
            truth("use_cache", use_cache)
        checked = check_key(key)
        life, labels = check_ttl("ttl", ttl), check_tags(tags)
        engine = await self._open()
        if use_cache is False:
            return await call_at_once(fn, engine.supervisor, f"cache:{self.name}:{checked}")
        request = Request(load=fn, ttl=life, tags=labels, condition=is_cacheable)
        return await engine.loading.get(checked, request)

    def desert(self) -> None:
        """Hand nothing out at once any more: this is a fork of the process it works in."""
        self._thread = 0

    async def prepare(self) -> Engine:
        """Make what makes it work. A reason why that cannot be is among its troubles, too.

        Raises:
            TopologyError: the broker has something else under a name that this needs.
            ConfigurationError: there is no such store, or no link for its backplane.
            NotStartedError, LifecycleError: as `_open`.
        """
        try:
            return await self._ready()
        except ConfigurationError as exc:
            self._trouble = [f"cache {self.name!r} could not be used: {exc}"]
            raise

    async def _open(self) -> Engine:
        """Return what makes it work.

        Raises:
            ConfigurationError: as `prepare`.
            NotStartedError: its cluster does not run.
            LifecycleError: that runs on another event loop, or in another process.
        """
        if self._engine is None:
            return await self.prepare()
        self._engine.loop.check()
        return self._engine


_caches: WeakSet[Wrapping] = WeakSet()


def _desert_all() -> None:
    for cache in _caches:
        cache.desert()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_desert_all)
