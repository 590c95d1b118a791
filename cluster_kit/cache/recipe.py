"""Functions whose results are kept."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from string import Formatter
from typing import Any, ParamSpec, TypeVar, cast

from cluster_kit.cache.loaders import check_callable
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
            check_callable(key)
        if isinstance(tags, str):
            raise ConfigurationError(f"tags are several: tags=({tags!r},)")
        self._wrap = wrap
        self._key = key
        self._ttl = ttl
        self._tags = tuple(tags)

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Return `function` with its results kept.

        Raises:
            ConfigurationError: it is not async, or a template names what it does not take.
        """
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError("cached() is for async functions; wrap() takes any")
        signature = inspect.signature(function)
        templates = (*([self._key] if isinstance(self._key, str) else []), *self._tags)
        for template in templates:
            _check(template, signature)

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


def _check(template: str, signature: inspect.Signature) -> None:
    for _, field, _, _ in Formatter().parse(template):
        if field is None:
            continue
        name = field.split(".")[0].split("[")[0]
        if name not in signature.parameters:
            known = ", ".join(signature.parameters) or "none"
            text = f"{template!r} names {name!r}, which is no parameter; there are: {known}"
            raise ConfigurationError(text)
