"""What a user's function takes, as its signature says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints

from cluster_kit.errors import ConfigurationError

Process = Callable[..., Any]
"""``process(payload)``, or with what is to be known about it, ``process(payload, delivery)``.

Async or sync.
"""

ANYTHING: tuple[object, ...] = (inspect.Parameter.empty, Any, object)
"""Annotations that say nothing."""

_GENERATORS = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class About(Protocol):
    """What every second argument has: it names what the handler was called for."""

    @property
    def channel(self) -> str:
        """Name without the app prefix."""
        ...

    @property
    def id(self) -> str:
        """Of the message."""
        ...


def is_async(process: Process) -> bool:
    """Whether calling it gives a coroutine, also through partials and callable objects."""
    return inspect.iscoroutinefunction(_innermost(process))


def _innermost(process: Process) -> object:
    """Return the function that is called in the end, with partials and callable objects opened."""
    while isinstance(process, functools.partial):
        process = process.func
    if inspect.isroutine(process) or isinstance(process, type):
        return process
    return getattr(process, "__call__", None)  # noqa: B004 - its type


def positional(process: Process, name: str, second: str) -> list[inspect.Parameter]:
    """Return the parameters of a handler that are passed by position.

    Args:
        process: the function.
        name: of it, for people.
        second: what the second parameter is called.

    Raises:
        ConfigurationError: it cannot be called with one payload, or with what belongs to it.
    """
    if not callable(process):
        raise ConfigurationError(f"a handler is a function, not {type(process).__name__}")
    try:
        parameters = list(inspect.signature(process).parameters.values())
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"handler {name} has no readable signature: {exc}") from exc
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    if any(test(_innermost(process)) for test in _GENERATORS):
        text = f"handler {name} is a generator, which would never run; return or await instead"
        raise ConfigurationError(text)
    positional = [p for p in parameters if p.kind in kinds]
    empty = inspect.Parameter.empty
    fixed = [p for p in positional if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    demanded = [p for p in fixed[2:] if p.default is empty]
    demanded += [
        p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is empty
    ]
    if not positional or demanded:
        text = f"handler {name} must take (payload) or (payload, {second})"
        raise ConfigurationError(text)
    return positional


def wants_second(
    process: Process, positional: list[inspect.Parameter], name: str, kind: type[About]
) -> bool:
    """Whether the function is to be given a `kind` as its second argument.

    Raises:
        ConfigurationError: its second parameter cannot be one, or is passed by keyword only.
    """
    _refuse_keyword_only(process, name, kind)
    if len(positional) == 1 or positional[1].kind is inspect.Parameter.VAR_POSITIONAL:
        return positional[-1].kind is inspect.Parameter.VAR_POSITIONAL
    second = positional[1]
    meant = [*_members(resolve(process, second, name, strict=False))]
    wanted = second.default is inspect.Parameter.empty or second.name == kind.__name__.lower()
    if wanted and not any(_may_be(member, kind) for member in meant):
        given, says = f"handler {name} is given a {kind.__name__}", second.annotation
        shown = says if isinstance(says, str) else inspect.formatannotation(says)
        raise ConfigurationError(f"{given} as {second.name}, which is annotated with {shown}")
    return wanted or kind in meant


def _refuse_keyword_only(process: Process, name: str, kind: type[About]) -> None:
    """Refuse what is never passed, as the second argument is passed by its position."""
    bound = _bound(process)
    for parameter in inspect.signature(process).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.name in bound:
            continue
        meant = _members(resolve(process, parameter, name, strict=False))
        if parameter.name == kind.__name__.lower() or kind in meant:
            text = f"handler {name}: {parameter.name} can be passed by keyword only"
            raise ConfigurationError(f"{text}, but the {kind.__name__} comes second")


def _bound(process: Process) -> frozenset[str]:
    """Return the keywords that are filled in already."""
    return frozenset(process.keywords if isinstance(process, functools.partial) else ())


def _members(annotation: object) -> Iterator[object]:
    """Iterate over the types an annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _may_be(annotation: object, kind: type[About]) -> bool:
    """Whether a value of this kind may be meant; so it is wherever nobody can tell."""
    origin = get_origin(annotation) or annotation
    if annotation in ANYTHING or not isinstance(origin, type):
        return annotation is not None
    return getattr(origin, "_is_protocol", False) or issubclass(kind, origin)


def resolve(
    process: Process, parameter: inspect.Parameter, name: str, *, strict: bool = True
) -> object:
    """Return the annotation as a type, also where it was written as a string.

    Without `strict` one that exists for type checkers only is `Any`.

    Raises:
        ConfigurationError: it cannot be resolved.
    """
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    function = inspect.unwrap(process)
    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        function = type(function).__call__
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hints = get_type_hints(_only(parameter), globalns=namespace, include_extras=True)
    except Exception as exc:
        if not strict:
            return Any
        text = f"handler {name}: cannot resolve the annotation {parameter.annotation!r}: {exc}"
        raise ConfigurationError(text) from exc
    return hints[parameter.name]


def _only(parameter: inspect.Parameter) -> Callable[[], None]:
    """Return a function with just this annotation: others may exist only for type checkers."""

    def holder() -> None: ...

    holder.__annotations__ = {parameter.name: parameter.annotation}
    return holder
