"""Functions whose results are kept."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

from cluster_kit.cache.loaders import check_callable
from cluster_kit.cache.options import several_tags
from cluster_kit.cache.template import Template
from cluster_kit.errors import ConfigurationError

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class CachedFunction(Protocol[P, T_co]):
    """A function whose results are kept, as `Cache.cached` makes it.

    Of a method, `key` and `invalidate` are asked by its class, and take the object first:
    ``await Shop.rate_of.invalidate(shop, "usd")``.
    """

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Return the result that is kept, or what the function returns. Raises as `Cache.wrap`."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call with these arguments.

        Raises:
            ConfigurationError: they do not fit the template.
        """
        ...

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Invalidate what a call with these arguments has kept, as `Cache.delete` does.

        Raises:
            ConfigurationError: as `key`.
            CacheUnavailable: as `Cache.delete`.
        """
        ...

    @overload
    def __get__(self, instance: None, owner: type | None = ...) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], T], instance: S, owner: type | None = ...
    ) -> Callable[Q, Coroutine[Any, Any, T]]: ...


class Recipe:
    """A decorator, made by `Cache.cached`.

    Keys are explicit: equal calls have equal keys, however the arguments are passed.
    """

    def __init__(
        self,
        wrap: Callable[..., Awaitable[Any]],
        delete: Callable[[str], Awaitable[bool]],
        key: str | Callable[..., str],
        ttl: float | None,
        tags: Iterable[str],
    ) -> None:
        if not isinstance(key, str):
            check_callable("key, where it is no template,", key)
        self._wrap = wrap
        self._delete = delete
        self._key = Template("key", key) if isinstance(key, str) else key
        self._ttl = ttl
        self._tags = [Template("tags", _text("tags", tag)) for tag in several_tags(tags)]

    def __call__(self, function: Callable[P, Awaitable[T]]) -> CachedFunction[P, T]:
        """Return `function` with its results kept.

        Raises:
            ConfigurationError: it is not async, or a template names what it does not take.
        """
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError("cached() is for async functions; wrap() takes any")
        signature = inspect.signature(function)
        own = [self._key] if isinstance(self._key, Template) else []
        for template in (*own, *self._tags):
            template.check(signature.parameters)

        @functools.wraps(function)
        async def kept(*args: P.args, **kwargs: P.kwargs) -> T:
            given = _given(signature, *args, **kwargs)
            key = self._made(given, *args, **kwargs)
            tags = [tag.fill(given) for tag in self._tags]
            load = functools.partial(function, *args, **kwargs)
            return cast("T", await self._wrap(key, load, ttl=self._ttl, tags=tags))

        def key(*args: P.args, **kwargs: P.kwargs) -> str:
            return self._made(_given(signature, *args, **kwargs), *args, **kwargs)

        async def invalidate(*args: P.args, **kwargs: P.kwargs) -> bool:
            return await self._delete(key(*args, **kwargs))

        vars(kept).update(key=key, invalidate=invalidate)
        return cast("CachedFunction[P, T]", kept)

    def _made(self, given: Mapping[str, object], *args: object, **kwargs: object) -> str:
        """Return the key of a call."""
        if isinstance(self._key, Template):
            return self._key.key(given)
        return self._key(*args, **kwargs)


def _given(signature: inspect.Signature, *args: object, **kwargs: object) -> Mapping[str, object]:
    """Return what a call gives to each parameter, what it names itself in order of the names."""
    bound = signature.bind(*args, **dict(sorted(kwargs.items())))
    bound.apply_defaults()
    return bound.arguments


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} are names or templates of them, not {value!r}")
    return value
