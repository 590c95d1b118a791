"""Functions whose results are kept."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from string import Formatter
from typing import Any, ParamSpec, TypeVar, cast

from cluster_kit.cache.loaders import check_callable
from cluster_kit.cache.options import several_tags
from cluster_kit.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")


class Recipe:
    """A decorator, made by `Cache.cached`.

    Keys are explicit: equal calls have equal keys, however the arguments are passed.
    """

    def __init__(
        self,
        wrap: Callable[..., Awaitable[Any]],
        key: str | Callable[..., str],
        ttl: float | None,
        tags: Iterable[str],
    ) -> None:
        if not isinstance(key, str):
            check_callable("key, where it is no template,", key)
        self._wrap = wrap
        self._key = key
        self._ttl = ttl
        self._tags = tuple(_text("tags", tag) for tag in several_tags(tags))
        self._fields = [
            (name, template, field)
            for name, template in self._templates()
            for field in _fields(name, template)
        ]

    def _templates(self) -> Iterator[tuple[str, str]]:
        if isinstance(self._key, str):
            yield "key", self._key
        for tag in self._tags:
            yield "tags", tag

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Return `function` with its results kept.

        Raises:
            ConfigurationError: it is not async, or a template names what it does not take.
        """
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError("cached() is for async functions; wrap() takes any")
        signature = inspect.signature(function)
        for name, template, field in self._fields:
            if field not in signature.parameters:
                known = ", ".join(signature.parameters) or "none"
                text = f"{name} {template!r} names {field!r}, which is no parameter; there are: "
                raise ConfigurationError(text + known)

        @functools.wraps(function)
        async def kept(*args: P.args, **kwargs: P.kwargs) -> T:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            key = (
                self._key.format(**given)
                if isinstance(self._key, str)
                else self._key(*args, **kwargs)
            )
            tags = [tag.format(**given) for tag in self._tags]
            load = functools.partial(function, *args, **kwargs)
            return cast("T", await self._wrap(key, load, ttl=self._ttl, tags=tags))

        return kept


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} are names or templates of them, not {value!r}")
    return value


def _fields(name: str, template: str) -> Iterator[str]:
    """Return which parameters a template names.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as exc:
        raise ConfigurationError(f"{name} {template!r} is no template: {exc}") from None
    for _, field, spec, conversion in parts:
        if conversion not in {None, "", "a", "r", "s"}:
            raise ConfigurationError(f"{name} {template!r} has a conversion !{conversion}")
        if field is not None:
            yield field.split(".")[0].split("[")[0]
        if spec:
            yield from _fields(name, spec)
