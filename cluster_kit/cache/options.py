"""What a cache is made with, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypedDict, TypeVar, cast

from cluster_kit.checks import whole_number
from cluster_kit.clock import MAX_WAIT, Duration, seconds
from cluster_kit.errors import ConfigurationError, UnknownOptionError
from cluster_kit.names import check_name, plain

if TYPE_CHECKING:
    from cluster_kit.cache.values import CopyMode

T = TypeVar("T")

MAX_AMOUNT = 2**31
"""Most a counter is raised by at once."""

MAX_TAGS = 1_000
"""Of a value. Each is looked up whenever the value is read."""


class CacheValues(TypedDict, total=False):
    """The options of `CacheManager.create_cache`."""

    prefix: str | None
    store: str | None
    ttl: Duration | None
    l1_size: int
    l1_ttl: Duration | None
    backplane: bool | None
    fail_safe: Duration | None
    soft_timeout: Duration | None
    hard_timeout: Duration
    eager: float | None
    jitter: float
    negative_ttl: Duration | None
    copy: CopyMode


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """What `CacheManager.create_cache` was given; durations are seconds.

    Attributes:
        name: of the cache.
        prefix: of its keys.
        store: name of its store; None for the default one.
        ttl: of values that name none; None for no expiry.
        l1_size: most entries held in this process; 0 holds none.
        l1_ttl: how long an entry is held here at most; None for the default.
        backplane: whether invalidations are told to other instances; None where it is of use.
        fail_safe: how long a value that is over may stand in for one that cannot be loaded.
        soft_timeout: how long a caller waits for a load when there is such a value; at most
            `hard_timeout`.
        hard_timeout: how long a caller waits for a load at most.
        eager: share of its ttl after which a value that is asked for is loaded anew besides.
        jitter: share by which a ttl is shortened at random at most.
        negative_ttl: of a loaded None.
        copy: whether callers get copies.
    """

    name: str
    prefix: str
    store: str | None = None
    ttl: float | None = None
    l1_size: int = 10_000
    l1_ttl: float | None = None
    backplane: bool | None = None
    fail_safe: float | None = None
    soft_timeout: float | None = None
    hard_timeout: float = 30.0
    eager: float | None = None
    jitter: float = 0.0
    negative_ttl: float | None = None
    copy: CopyMode = "deep"

    def differing(self, other: CacheOptions) -> list[str]:
        """Return the names of the options that `other` has another value of."""
        names = (field.name for field in fields(self))
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def make_options(name: object, default_ttl: float | None, values: CacheValues) -> CacheOptions:
    """Check what a caller gave.

    Raises:
        ConfigurationError: something is wrong; the text names it.
    """
    for option in values:
        if option not in CacheValues.__annotations__:
            raise UnknownOptionError("create_cache()", option, CacheValues.__annotations__)
    checked = check_name("cache name", name)
    prefix = values.get("prefix")
    ttl = check_ttl("ttl", values.get("ttl"))
    options = CacheOptions(
        name=checked,
        prefix=checked if prefix is None else check_name("cache prefix", prefix),
        store=_store(values.get("store")),
        ttl=default_ttl if ttl is None else ttl,
        l1_size=whole_number("l1_size", values.get("l1_size", 10_000)),
        l1_ttl=check_ttl("l1_ttl", values.get("l1_ttl")),
        backplane=_choice("backplane", values.get("backplane"), (None, True, False)),
        fail_safe=check_ttl("fail_safe", values.get("fail_safe")),
        soft_timeout=check_ttl("soft_timeout", values.get("soft_timeout")),
        hard_timeout=seconds(
            "hard_timeout", values.get("hard_timeout", 30.0), zero=False, limit=MAX_WAIT
        ),
        eager=_share("eager", values.get("eager")),
        jitter=_share("jitter", values.get("jitter", 0.0)) or 0.0,
        negative_ttl=check_ttl("negative_ttl", values.get("negative_ttl")),
        copy=_choice("copy", values.get("copy", "deep"), ("deep", "none")),
    )
    if options.soft_timeout is not None and options.fail_safe is None:
        raise ConfigurationError("soft_timeout needs fail_safe: there is nothing else to return")
    if options.soft_timeout is not None and options.soft_timeout > options.hard_timeout:
        raise ConfigurationError("soft_timeout must not be above hard_timeout, which ends the wait")
    return options


def check_ttl(name: str, value: object) -> float | None:
    """Return a ttl in seconds; None stays.

    Raises:
        ConfigurationError: not a finite duration above 0, or over 30 days.
    """
    return None if value is None else seconds(name, value, zero=False, limit=MAX_WAIT)


def check_key(key: object) -> str:
    """Return a key if it is legal, as other names are.

    Raises:
        InvalidNameError: it is not.
    """
    return check_name("cache key", key)


def check_tag(tag: object) -> str:
    """Return a tag if it is legal, as other names are.

    Raises:
        InvalidNameError: it is not.
    """
    return check_name("cache tag", tag)


def check_tags(tags: Iterable[str], most: int | None = MAX_TAGS) -> tuple[str, ...]:
    """Return tags, each once.

    Raises:
        ConfigurationError: one is malformed, they are more than `most`, or a single string.
    """
    checked = tuple(dict.fromkeys(map(check_tag, several_tags(tags))))
    if most is not None and len(checked) > most:
        raise ConfigurationError(f"a value may have {most:,} tags, not {len(checked):,}")
    return checked


def several_tags(tags: object) -> tuple[object, ...]:
    """Return tags as they were given.

    Raises:
        ConfigurationError: a single string, or nothing to go through.
    """
    if isinstance(tags, str):
        raise ConfigurationError(f"tags are several: tags=({tags!r},)")
    if not isinstance(tags, Iterable):
        raise ConfigurationError(f"tags are names, as in tags=('a', 'b'), not {tags!r}")
    return tuple(cast("Iterable[object]", tags))


def check_field(field: object) -> str:
    """Return the name of a field.

    Raises:
        ConfigurationError: it is not text.
    """
    if not isinstance(field, str):
        raise ConfigurationError(f"object_key must be text, not {type(field).__name__}")
    return plain(field)


def check_values(values: object) -> dict[str, object]:
    """Return values by key.

    Raises:
        ConfigurationError: no mapping, or a key is malformed.
    """
    if not isinstance(values, Mapping):
        text = f"mset() takes values by key, as in {{'a': 1}}, not {type(values).__name__}"
        raise ConfigurationError(text)
    named = cast("Mapping[object, object]", values)
    return {check_key(key): value for key, value in named.items()}


def check_amount(amount: object) -> int:
    """Return what a counter is to be raised by.

    Raises:
        ConfigurationError: not a whole number from 1 to 2**31.
    """
    return whole_number("amount", amount, least=1, most=MAX_AMOUNT)


def _store(value: object) -> str | None:
    return None if value is None else check_name("cache store", value)


def _share(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigurationError(f"{name} must be a share from 0 to below 1, not {value!r}")
    return float(value)


def _choice(name: str, value: T, known: tuple[T, ...]) -> T:
    if not any(type(value) is type(choice) and value == choice for choice in known):
        raise ConfigurationError(f"{name} must be one of {known}, not {value!r}")
    return value
