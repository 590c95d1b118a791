"""Functions whose results are kept."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar, cast

from cluster_kit.cache.loaders import check_callable
from cluster_kit.cache.options import several_tags
from cluster_kit.cache.template import Template
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
        self._key = Template("key", key) if isinstance(key, str) else key
        self._ttl = ttl
        self._tags = [Template("tags", _text("tags", tag)) for tag in several_tags(tags)]

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
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
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            key = (
                self._key.key(given)
                if isinstance(self._key, Template)
                else self._key(*args, **kwargs)
            )
            tags = [tag.fill(given) for tag in self._tags]
            load = functools.partial(function, *args, **kwargs)
            return cast("T", await self._wrap(key, load, ttl=self._ttl, tags=tags))

        return kept


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} are names or templates of them, not {value!r}")
    return value
