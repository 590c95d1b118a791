"""A user's function as a service calls it: arity, payload type, sync or async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Protocol,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from cluster_kit.errors import ConfigurationError, DecodeError
from cluster_kit.message import Delivery, HandlerAnswer

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

    from cluster_kit.codec import Codec
    from cluster_kit.supervisor import Supervisor

Process = Callable[..., Any]
"""``process(payload)``, or with what is to be known about it, ``process(payload, delivery)``.

Async or sync.
"""

_ANYTHING: tuple[object, ...] = (inspect.Parameter.empty, Any, object)
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


class Handler:
    """Decodes for, and calls, one user function.

    A parameter annotated with a type other than ``object`` or ``Any`` is validated by pydantic
    before the function is called. A function that is not a coroutine function runs in a thread.

    Args:
        process: the function.
        codec: of the payloads.
        second: what the second argument is; it is called as its class, in lower case.

    Attributes:
        process: the function.
        name: of the function, for people.
        needs_delivery: whether `call` must be given a delivery; most of their cost is saved else.
    """

    def __init__(self, process: Process, codec: Codec, second: type[About] = Delivery) -> None:
        self.process = process
        self._codec = codec
        self.name = getattr(process, "__qualname__", None) or repr(process)
        self._is_async = is_async(process)
        parameters = _positional(process, self.name, second.__name__.lower())
        self._validator = _validator(process, parameters[0], self.name)
        self._wants_delivery = _wants_second(process, parameters, self.name, second)
        self.needs_delivery: bool = self._wants_delivery or not self._is_async

    def decode(self, body: bytes, content_type: str | None) -> object:
        """Return the payload of `body` as the function wants it.

        Without a content type the body is tried as JSON, because that is what other clients
        most often send.

        Raises:
            DecodeError: other content type, not decodable, or not what the annotation says.
        """
        own = self._codec.content_type
        if content_type not in (None, own) and _media_type(content_type or "") != own:
            raise DecodeError(f"content type {content_type!r} is not {own}")
        if self._validator is None or b"NaN" in body or b"Infinity" in body:
            payload = self._codec.decode(body)  # stricter than pydantic, which takes NaN for JSON
            if self._validator is None:
                return payload
        from pydantic import ValidationError  # noqa: PLC0415 - only for annotated payloads

        try:
            return self._validator.validate_json(body)
        except ValidationError as exc:
            self._codec.decode(body)  # says so when it is not JSON at all
            text = f"the payload is not what {self.name} takes: {_summary(exc)}"
            raise DecodeError(text) from exc

    def call(
        self, payload: object, delivery: About | None, supervisor: Supervisor
    ) -> Awaitable[object]:
        """Start the function. What awaiting it gives is for `conclude`: only then it has ended.

        Args:
            payload: as `decode` gave it.
            delivery: None only where `needs_delivery` says so.
            supervisor: has the threads of sync functions.
        """
        arguments = (payload, delivery) if self._wants_delivery else (payload,)
        if self._is_async:
            awaitable: Awaitable[object] = self.process(*arguments)
            return awaitable
        name = f"{delivery.channel}:{delivery.id}" if delivery else self.name
        return _in_thread(functools.partial(self.process, *arguments), name, supervisor)


async def conclude(result: object) -> None:
    """Take what a handler returned, unless that is None: await it, if it is to be awaited.

    Raises:
        TypeError: it is an answer such as `Reject`, which has no effect unless it is raised.
        BaseException: what the awaited one raised.
    """
    while inspect.isawaitable(result):
        result = await result
    kind = cast("type[object]", result) if isinstance(result, type) else type(result)
    if issubclass(kind, HandlerAnswer):
        raise TypeError(f"the handler's return value is a {kind.__name__}: raise it")


async def _in_thread(call: Callable[[], object], name: str, supervisor: Supervisor) -> object:
    return await supervisor.run_in_thread(call, name=name)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


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


def _positional(process: Process, name: str, second: str) -> list[inspect.Parameter]:
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


def _wants_second(
    process: Process, positional: list[inspect.Parameter], name: str, kind: type[About]
) -> bool:
    _refuse_keyword_only(process, name, kind)
    if len(positional) == 1 or positional[1].kind is inspect.Parameter.VAR_POSITIONAL:
        return positional[-1].kind is inspect.Parameter.VAR_POSITIONAL
    second = positional[1]
    meant = [*_members(_resolve(process, second, name, strict=False))]
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
        meant = _members(_resolve(process, parameter, name, strict=False))
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
    if annotation in _ANYTHING or not isinstance(origin, type):
        return annotation is not None
    return getattr(origin, "_is_protocol", False) or issubclass(kind, origin)


def _validator(
    process: Process, parameter: inspect.Parameter, name: str
) -> TypeAdapter[Any] | None:
    if parameter.annotation in _ANYTHING or parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return None
    annotation: Any = _resolve(process, parameter, name)
    if annotation in _ANYTHING:
        return None
    if annotation is Delivery:
        raise ConfigurationError(f"handler {name}: the payload comes first, the delivery second")
    from pydantic import PydanticUserError, TypeAdapter  # noqa: PLC0415 - costs 100 ms to import

    try:
        adapter = TypeAdapter(annotation)
        _ = adapter.validator.title  # raises while a forward reference inside is open
    except PydanticUserError as exc:
        text = f"handler {name}: cannot validate payloads as {annotation!r}: {exc.message}"
        raise ConfigurationError(text) from exc
    return adapter


def _resolve(
    process: Process, parameter: inspect.Parameter, name: str, *, strict: bool = True
) -> object:
    """Return the annotation as a type, also where it was written as a string.

    Without `strict` one that exists for type checkers only is `Any`.
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


def _summary(error: ValidationError) -> str:
    """Pydantic's findings in one line, without the input, which may be long or secret."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    places = [f"{'.'.join(map(str, e['loc'])) or 'payload'}: {e['msg']}" for e in found[:5]]
    more = f" (+{len(found) - 5} more)" if len(found) > 5 else ""  # noqa: PLR2004 - as above
    return "; ".join(places) + more
