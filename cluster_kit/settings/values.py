"""Types of settings. Each validator accepts the text of a variable and the value of an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from cluster_kit.broadcast import TRANSPORTS, Transport
from cluster_kit.checks import MAX_PREFETCH
from cluster_kit.clock import MAX_WAIT, Duration, seconds
from cluster_kit.errors import ConfigurationError
from cluster_kit.message import MAX_RETRIES
from cluster_kit.names import check_app, check_name
from cluster_kit.patterns import check_pattern
from cluster_kit.settings.worker_mode import WorkerMode
from cluster_kit.urls import redact_url, server_url_fault, url_scheme

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_AMQP = ("amqp", "amqps")
_REDIS = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
_MEMCACHED = ("memcached",)
_TCP = frozenset({*_AMQP, *_REDIS, *_MEMCACHED})


@dataclass(frozen=True, slots=True)
class Check:
    """What a setting must pass, also where pydantic, which takes 0.1 s to import, is not loaded.

    Attributes:
        call: returns the setting, or raises `ConfigurationError`.
    """

    call: Callable[[Any], object]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check a value before pydantic does."""
        from pydantic_core import core_schema  # noqa: PLC0415 - see above

        return core_schema.no_info_before_validator_function(self.call, handler(source))


def checked(kind: object, value: object) -> object:
    """Return a value of one of the types below. Raises `ConfigurationError`."""
    [check] = cast("tuple[Check]", cast("Any", kind).__metadata__)
    return check.call(value)


class ServerUrl:
    """The address of a server, whose password is seen only by who asks for it.

    `str`, `repr`, formatting and JSON show the redacted form; `reveal` returns the text itself.

    >>> url = ServerUrl("amqp://shop:secret@mq/")
    >>> url, f"{url}"
    (ServerUrl('amqp://shop:***@mq/'), 'amqp://shop:***@mq/')
    >>> url.reveal()
    'amqp://shop:secret@mq/'
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Take the address.

        Raises:
            ConfigurationError: it is empty, has no scheme, or has spaces or control characters;
                of a server that is reached by TCP, also when host, port or encoding are wrong.
        """
        self._text: Final = _check_url(text)

    @property
    def scheme(self) -> str:
        """The scheme in lower case."""
        return url_scheme(self._text)

    def reveal(self) -> str:
        """Return the address with its password."""
        return self._text

    def __str__(self) -> str:
        return redact_url(self._text)

    def __repr__(self) -> str:
        return f"ServerUrl({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, ServerUrl) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[ServerUrl], tuple[str]]:
        return ServerUrl, (self._text,)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Accept an address or its text; write the redacted form to JSON."""
        from pydantic_core import core_schema  # noqa: PLC0415 - see `Check`

        return core_schema.no_info_plain_validator_function(
            _to_url,
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )


def _check_url(text: str) -> str:
    # The value is never shown: without a scheme nobody can tell where its password is.
    if not text.strip():
        raise ConfigurationError("the URL is empty; leave it out instead")
    if any(c.isspace() or not c.isprintable() for c in text):
        raise ConfigurationError("the URL has spaces or control characters")
    if not url_scheme(text):
        raise ConfigurationError("this is no URL: expected scheme://host")
    if url_scheme(text) in _TCP and (fault := server_url_fault(text)):
        raise ConfigurationError(fault)
    return text


def _to_url(value: object) -> ServerUrl:
    if isinstance(value, ServerUrl):
        return value
    if isinstance(value, str):
        return ServerUrl(value)
    raise ConfigurationError(f"a URL is a string, not {type(value).__name__}")


def _url_with_scheme(*schemes: str) -> Check:
    def check(value: object) -> ServerUrl | None:
        if value is None:
            return None
        url = _to_url(value)
        if url.scheme not in schemes:
            wanted = " or ".join(f"{scheme}://" for scheme in schemes)
            raise ConfigurationError(f"the URL starts with {url.scheme}://, expected {wanted}")
        return url

    return Check(check)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigurationError(f"expected a number, not {type(value).__name__}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"expected a number, not {value!r}") from None
    if not math.isfinite(number):
        raise ConfigurationError(f"expected a finite number, not {value!r}")
    return number


def _number_within(least: float, most: float) -> Check:
    def check(value: object) -> float:
        number = _number(value)
        if not least <= number <= most:
            limits = f"from {least:g} to {most:g}" if math.isfinite(most) else f"{least:g} or more"
            raise ConfigurationError(f"expected a number {limits}, not {value!r}")
        return number

    return Check(check)


def _whole_within(least: int, most: int | None = None) -> Check:
    def check(value: object) -> int:
        number = _number(value)
        whole = int(number)
        if whole != number or whole < least or (most is not None and whole > most):
            limits = f"from {least} to {most}" if most is not None else f"{least} or more"
            raise ConfigurationError(f"expected a whole number {limits}, not {value!r}")
        return whole

    return Check(check)


def _duration(*, zero: bool, limit: float) -> Check:
    def check(value: Duration | str) -> float:
        given = _number(value) if isinstance(value, str) else value
        return seconds("the duration", given, zero=zero, limit=limit)

    return Check(check)


def _optional_timeout(value: Duration | str | None) -> float | None:
    if value is None:
        return None
    given = _number(value) if isinstance(value, str) else value
    return seconds("the duration", given, zero=False, limit=MAX_WAIT)


def _expiry(value: Duration | str) -> float:
    """Check how long a broker is to keep something; it counts in seconds."""
    given = _number(value) if isinstance(value, str) else value
    wait = seconds("the duration", given, limit=MAX_WAIT)
    if wait < 1:
        raise ConfigurationError(f"expected a duration of 1 s or more, not {value!r}")
    return wait


def _app(value: object) -> str | None:
    return None if value is None else check_app(value)


def _instance_id(value: object) -> str | None:
    return None if value is None else check_name("instance id", value)


def _worker_mode(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"a worker mode is a string, not {type(value).__name__}")
    WorkerMode.parse(value)
    return value


def _transport(value: object) -> Transport:
    for transport in TRANSPORTS:
        if value == transport:
            return transport
    raise ConfigurationError(f"a transport is {', '.join(TRANSPORTS)}, not {value!r}")


def _transports(value: object) -> tuple[tuple[str, Transport], ...]:
    """Read patterns with their transports: a mapping, pairs, or ``pattern=transport,…``."""
    pairs: Sequence[object]
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        pairs = [[word.strip() for word in part.rsplit("=", 1)] for part in parts]
    elif isinstance(value, Mapping):
        pairs = list(cast("Mapping[object, object]", value).items())
    elif isinstance(value, list | tuple):
        pairs = cast("Sequence[object]", value)
    else:
        kind = type(value).__name__
        raise ConfigurationError(f"expected patterns with transports, not {kind}")
    return tuple(_choice(pair) for pair in pairs)


def _choice(pair: object) -> tuple[str, Transport]:
    words = cast("Sequence[object]", pair) if isinstance(pair, list | tuple) else ()
    if len(words) != _PAIR:
        raise ConfigurationError(f"expected pattern=transport, not {pair!r}")
    return check_pattern(words[0]), _transport(words[1])


_PAIR = 2
_MAX_SEGMENT_BYTES = 3_000_000_000  # RabbitMQ's own bound

AmqpUrl = Annotated[ServerUrl | None, _url_with_scheme(*_AMQP)]
RedisUrl = Annotated[ServerUrl | None, _url_with_scheme(*_REDIS, "unix")]
MemcachedUrl = Annotated[ServerUrl | None, _url_with_scheme(*_MEMCACHED)]
AppName = Annotated[str | None, Check(_app)]
InstanceId = Annotated[str | None, Check(_instance_id)]
WorkerModeText = Annotated[str, Check(_worker_mode)]
Wait = Annotated[float, _duration(zero=True, limit=MAX_WAIT)]
Timeout = Annotated[float, _duration(zero=False, limit=MAX_WAIT)]
OptionalTimeout = Annotated[float | None, Check(_optional_timeout)]
Expiry = Annotated[float, Check(_expiry)]
Grace = Annotated[float, _duration(zero=True, limit=MAX_WAIT)]
Factor = Annotated[float, _number_within(1, math.inf)]
Share = Annotated[float, _number_within(0, 1)]
Count = Annotated[int, _whole_within(0)]
Retries = Annotated[int, _whole_within(0, MAX_RETRIES)]
SizeBytes = Annotated[int, _whole_within(1)]
SegmentBytes = Annotated[int, _whole_within(1, _MAX_SEGMENT_BYTES)]
InFlight = Annotated[int, _whole_within(1, MAX_PREFETCH)]
BufferSize = Annotated[int, _whole_within(1)]
TransportName = Annotated[Transport, Check(_transport)]
TransportChoices = Annotated[tuple[tuple[str, Transport], ...], Check(_transports)]
