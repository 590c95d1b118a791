"""A user's function as a service calls it: arity, payload type, sync or async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

from cluster_kit.errors import ConfigurationError, DecodeError
from cluster_kit.message import Delivery, HandlerAnswer
from cluster_kit.signature import (
    ANYTHING,
    About,
    Process,
    is_async,
    positional,
    resolve,
    wants_second,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

    from cluster_kit.codec import Codec
    from cluster_kit.supervisor import Supervisor


class Handler:
    """Decodes for, and calls, one user function.

    A parameter annotated with a type other than ``object`` or ``Any`` is validated before the
    function is called, by pydantic where it is more than a ``dict`` or ``list`` of anything. A
    function that is not a coroutine function runs in a thread.

    Args:
        process: the function.
        codec: of the payloads.
        second: what the second argument is; it is called as its class, in lower case.

    Attributes:
        process: the function.
        name: of the function, for people.
        needs_delivery: whether `bind` must be given a delivery; most of their cost is saved else.
    """

    def __init__(self, process: Process, codec: Codec, second: type[About] = Delivery) -> None:
        self.process = process
        self._codec = codec
        self.name = getattr(process, "__qualname__", None) or repr(process)
        self._is_async = is_async(process)
        parameters = positional(process, self.name, second.__name__.lower())
        annotation = _annotation(process, parameters[0], self.name)
        self._plain = _plain(annotation)
        self._validate = None if self._plain else _validator(annotation, self.name)
        self._wants_delivery = wants_second(process, parameters, self.name, second)
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
        if self._validate is None or _may_be_infinite(body):
            payload = self._codec.decode(body)  # stricter than pydantic, which takes NaN for JSON
            if self._validate is None:
                if self._plain is None or isinstance(payload, self._plain):
                    return payload
                found = f"payload: Input should be {_PLAIN[self._plain]}"
                raise DecodeError(f"the payload is not what {self.name} takes: {found}")
        try:
            return self._validate(body)
        except ValueError as exc:
            raise self._refused(body, exc) from exc

    def _refused(self, body: bytes, error: ValueError) -> Exception:
        """Return the error for what the validator did not take.

        Raises:
            DecodeError: it is not JSON at all.
        """
        from pydantic import ValidationError  # noqa: PLC0415 - only for annotated payloads

        if not isinstance(error, ValidationError):
            return error
        self._codec.decode(body)  # says so when it is not JSON at all
        return DecodeError(f"the payload is not what {self.name} takes: {_summary(error)}")

    def bind(
        self, payload: object, delivery: About | None, supervisor: Supervisor
    ) -> Callable[[], Awaitable[object]]:
        """Return what starts the function.

        What awaiting that gives is for `conclude`: only then the function has ended.

        Args:
            payload: as `decode` gave it.
            delivery: None only where `needs_delivery` says so.
            supervisor: has the threads of sync functions.
        """
        if self._wants_delivery:
            process = functools.partial(self.process, payload, delivery)
        else:
            process = functools.partial(self.process, payload)
        if self._is_async:
            return process
        name = f"{delivery.channel}:{delivery.id}" if delivery else self.name
        return functools.partial(supervisor.run_in_thread, process, name=name)


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


_DIGITS = bytes.maketrans(b"123456789+E", b"0000000000e")
_LONG = b"0" * 200
_N, _I = ord("N"), ord("I")


def _may_be_infinite(body: bytes) -> bool:
    """Whether JSON may be inside that becomes NaN or an infinity: says no only when it is sure.

    A number of less than 200 digits with an exponent of two is finite.
    """
    # Most bodies have not even the letter, and a single byte is looked for much faster; `find`
    # takes half as long as `in`, which first tries what it looks for as a number.
    if (_N in body and b"NaN" in body) or (_I in body and b"Infinity" in body):
        return True
    alike = body.translate(_DIGITS)
    return alike.find(b"0e000") >= 0 or alike.find(_LONG) >= 0


_UNKNOWN_TYPE = (
    "it is, or has in it, a type that pydantic does not know; take a model, a dataclass, a "
    "TypedDict, or what JSON has"
)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _annotation(process: Process, parameter: inspect.Parameter, name: str) -> object:
    """Return what the payload is annotated with, ``object`` for nothing."""
    if parameter.annotation in ANYTHING or parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return object
    annotation = resolve(process, parameter, name)
    if annotation is Delivery:
        raise ConfigurationError(f"handler {name}: the payload comes first, the delivery second")
    return annotation


_PLAIN: dict[type[object], str] = {dict: "an object", list: "a valid array"}
"""What JSON itself has, in the words of pydantic: for these it need not be loaded."""


def _plain(annotation: object) -> type[object] | None:
    """Return which of `_PLAIN` is meant, if its items may be anything; None for all else."""
    kind = get_origin(annotation) or annotation
    items = get_args(annotation)
    if kind is dict and items[:1] == (str,):
        items = items[1:]
    for plain in _PLAIN:
        if kind is plain and all(item in ANYTHING for item in items):
            return plain
    return None


def _validator(annotation: object, name: str) -> Callable[[bytes], object] | None:
    if annotation in ANYTHING:
        return None
    from pydantic import PydanticUserError  # noqa: PLC0415 - costs more than all else of a start

    try:
        adapter = _adapter(annotation)
        _ = adapter.validator.title  # raises while a forward reference inside is open
    except PydanticUserError as exc:
        unknown = exc.code == "schema-for-unknown-type"
        why = _UNKNOWN_TYPE if unknown else exc.message
        text = f"handler {name}: cannot validate payloads as {annotation!r}: {why}"
        raise ConfigurationError(text) from exc
    return adapter.validator.validate_json  # that of the adapter itself costs twice as much


def _adapter(annotation: object) -> TypeAdapter[Any]:
    """Return what validates: floats are finite, as in JSON, unless a model has it otherwise."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter  # noqa: PLC0415 - as above

    form = cast("Any", annotation)
    try:
        return TypeAdapter(form, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError as exc:
        if exc.code != "type-adapter-config-unused":  # a model, which has a config of its own
            raise
        return TypeAdapter(form)


def _summary(error: ValidationError) -> str:
    """Pydantic's findings in one line, without the input, which may be long or secret."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    places = [f"{'.'.join(map(str, e['loc'])) or 'payload'}: {e['msg']}" for e in found[:5]]
    more = f" (+{len(found) - 5} more)" if len(found) > 5 else ""  # noqa: PLR2004 - as above
    return "; ".join(places) + more
