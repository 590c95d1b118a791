"""Functions whose results are kept."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Self,
    TypeVar,
    cast,
    overload,
)

from cluster_kit.cache.loaders import check_callable
from cluster_kit.cache.options import several_tags
from cluster_kit.cache.template import Template
from cluster_kit.errors import ConfigurationError

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
C = TypeVar("C", bound=type[Any])
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Kept(NamedTuple):
    """A function, and how its results are kept."""

    function: Callable[..., Awaitable[Any]]
    signature: inspect.Signature
    wrap: Callable[..., Awaitable[Any]]
    delete: Callable[[str], Awaitable[bool]]
    template: Template | Callable[..., str]
    ttl: float | None
    tags: Sequence[Template]

    async def result(self, *args: object, **kwargs: object) -> object:
        """Return what a call returns, or has returned."""
        given = self._given(*args, **kwargs)
        key = self._made(given, *args, **kwargs)
        tags = [tag.fill(given) for tag in self.tags]
        load = functools.partial(self.function, *args, **kwargs)
        return await self.wrap(key, load, ttl=self.ttl, tags=tags)

    def key(self, *args: object, **kwargs: object) -> str:
        """Return the key of a call."""
        return self._made(self._given(*args, **kwargs), *args, **kwargs)

    def _made(self, given: Mapping[str, object], *args: object, **kwargs: object) -> str:
        if isinstance(self.template, Template):
            return self.template.key(given)
        return self.template(*args, **kwargs)

    def _given(self, *args: object, **kwargs: object) -> Mapping[str, object]:
        """Return what a call gives to each parameter, what it names itself in order of names."""
        bound = self.signature.bind(*args, **dict(sorted(kwargs.items())))
        bound.apply_defaults()
        return bound.arguments


class CachedFunction(Generic[P, T_co]):
    """A function whose results are kept, as `Cache.cached` makes it.

    Of a method each object has its own: ``await shop.rate_of.invalidate("usd")``. A class method
    or static method is made one first: ``cached`` stands above.
    """

    def __init__(self, kept: _Kept, function: object, *first: object) -> None:
        wrapped: Any = function  # or a class method, or a static method
        functools.update_wrapper(self, wrapped, updated=())
        self.__name__: str = wrapped.__name__
        self.__qualname__: str = wrapped.__qualname__
        self._kept = kept
        self._wrapped: Any = wrapped
        self._first = first

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Return the result that is kept, or what the function returns. Raises as `Cache.wrap`."""
        return cast("T_co", await self._kept.result(*self._first, *args, **kwargs))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call with these arguments.

        Raises:
            ConfigurationError: they do not fit the template.
            TypeError: the function does not take them.
        """
        return self._kept.key(*self._first, *args, **kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Invalidate what a call with these arguments has kept, as `Cache.delete` does.

        Raises:
            ConfigurationError, TypeError: as `key`.
            CacheUnavailable: as `Cache.delete`.
        """
        return await self._kept.delete(self.key(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type | None = ...) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], T], instance: S, owner: type | None = ...
    ) -> CachedFunction[Q, T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = ...) -> Self: ...
    def __get__(self, instance: object, owner: type | None = None) -> CachedFunction[..., Any]:
        bound = self._wrapped.__get__(instance, owner)
        if bound is self._wrapped:
            return self
        first = (bound.__self__,) if hasattr(bound, "__self__") else ()
        return CachedFunction(self._kept, bound, *first)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CachedFunction):
            return NotImplemented
        return self._kept is other._kept and self._wrapped == other._wrapped

    def __hash__(self) -> int:
        return hash(self._wrapped)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle it as functions and methods are: by name."""
        return (getattr, (*self._first, self.__name__)) if self._first else self.__qualname__

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            # all else is the function's, so that `inspect` takes this for the async one it is
            return getattr(vars(self)["__wrapped__"], name)


if TYPE_CHECKING:

    class _OfClass(CachedFunction[Concatenate[C, Q], T]):
        """For type checkers: what has a class first is bound to it, if it is a method."""

        def __get__(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            self, instance: object, owner: type | None = ...
        ) -> CachedFunction[Q, T]: ...  # not what a plain function is, which is bound to objects


def by_name(method: Callable[P, T]) -> Callable[P, T]:
    """Have `Cache.cached` say how it is written to who forgot its parentheses, or ``key=``."""

    @functools.wraps(method)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if len(args) > 1:
            key = repr(args[1]) if isinstance(args[1], str) else "…"
            raise ConfigurationError(f"write @cache.cached(key={key}): the key is given by name")
        return method(*args, **kwargs)

    return checked


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

    @overload
    def __call__(
        self, function: Callable[Concatenate[C, Q], Awaitable[T]]
    ) -> _OfClass[C, Q, T]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[T]]) -> CachedFunction[P, T]: ...
    def __call__(self, function: Callable[..., Awaitable[Any]]) -> CachedFunction[..., Any]:
        """Return `function` with its results kept.

        Raises:
            ConfigurationError: it is not async, a template names what it does not take, or it is
                to become a class method only after this.
        """
        given: Any = function
        made = isinstance(function, classmethod | staticmethod)
        plain: Callable[..., Awaitable[Any]] = given.__func__ if made else given
        if not inspect.iscoroutinefunction(plain):
            raise ConfigurationError("cached() is for async functions; wrap() takes any")
        signature = inspect.signature(plain)
        if not made and _in_a_class(plain) and next(iter(signature.parameters), None) == "cls":
            raise ConfigurationError(f"{plain.__qualname__}: cached() goes above @classmethod")
        own = [self._key] if isinstance(self._key, Template) else []
        for template in (*own, *self._tags):
            template.check(signature.parameters)
        parts = (self._wrap, self._delete, self._key, self._ttl, self._tags)
        return CachedFunction(_Kept(plain, signature, *parts), given)


def _in_a_class(function: Callable[..., object]) -> bool:
    """Whether it is defined in the body of a class."""
    around = function.__qualname__.rpartition(".")[0]
    return bool(around) and not around.endswith("<locals>")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} are names or templates of them, not {value!r}")
    return value
