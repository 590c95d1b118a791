"""What is invalidated, and what is still to be told of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf, isfinite
from typing import TYPE_CHECKING, NamedTuple, cast

from cluster_kit.cache.options import check_key, check_tag
from cluster_kit.errors import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_UNSENT = 10_000
"""Keys and tags that wait to be told; beyond them all entries are invalidated instead."""

MOST_NAMES = 500
"""Keys and tags in one message."""

MOST_RESETS = 32
"""Resets of counters that are known; beyond them the last stand for those before."""


class Change(NamedTuple):
    """Keys and tags that are invalidated, or the whole cache.

    Attributes:
        keys: of entries.
        tags: of entries.
        everything: all entries of the cache.
        counters: the ids of resets of all its counters, by which they are known when they are told
            of again.
        stored: whether the store knows.
    """

    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    everything: bool = False
    counters: tuple[str, ...] = ()
    stored: bool = True

    @property
    def empty(self) -> bool:
        """Whether nothing is invalidated: it was sent for its number alone, see `Backplane`."""
        return not (self.keys or self.tags or self.everything or self.counters)

    def message(self) -> dict[str, object]:
        """Return what travels to other instances: names, never values."""
        return {
            "k": self.keys,
            "t": self.tags,
            "all": self.everything,
            "counters": " ".join(self.counters),
            "stored": self.stored,
        }

    def parts(self) -> Iterator[Change]:
        """Return all of it, in changes of a handy size."""
        if self.everything or self.counters:
            yield Change(everything=self.everything, counters=self.counters, stored=self.stored)
        for keys in _chunks(self.keys):
            yield Change(keys=keys, stored=self.stored)
        for tags in _chunks(self.tags):
            yield Change(tags=tags, stored=self.stored)

    def smaller(self) -> tuple[Change, ...]:
        """Return changes with fewer names that together invalidate no less; empty for none.

        A name that is too large by itself is told of as everything.
        """
        names = len(self.keys) + len(self.tags)
        if names < 2:  # noqa: PLR2004 - what has two halves
            return (self._replace(keys=(), tags=(), everything=True),) if names else ()
        keys, tags = (len(self.keys) + 1) // 2, len(self.tags) // 2
        return (
            self._replace(keys=self.keys[:keys], tags=self.tags[:tags]),
            self._replace(keys=self.keys[keys:], tags=self.tags[tags:]),
        )


def from_message(message: object) -> Change:
    """Return the change another instance tells of.

    What cannot be read is taken for all: another release may know more kinds, or other names.
    """
    if not isinstance(message, dict):
        return Change(everything=True)
    message = cast("dict[str, object]", message)
    keys, tags, stored = message.get("k", ()), message.get("t", ()), message.get("stored") is True
    counters = _resets(message.get("counters"))
    if message.get("all") is not False or not (_names(keys, check_key) and _names(tags, check_tag)):
        return Change(everything=True, counters=counters, stored=stored)
    return Change(
        keys=tuple(cast("list[str]", keys)),
        tags=tuple(cast("list[str]", tags)),
        counters=counters,
        stored=stored,
    )


def after(quiet: float, change: Change | None = None) -> dict[str, object]:
    """Return the message of a change, by an instance that told of none for so many seconds.

    Without a change it is a beat. An infinite number is left out: it is the first one told of.
    """
    message = (change or Change()).message()
    return {**message, "quiet": quiet} if isfinite(quiet) else message


def quiet_before(message: object) -> float:
    """Return how long an instance had told of nothing, as its message says."""
    quiet = cast("dict[str, object]", message).get("quiet") if isinstance(message, dict) else None
    return float(quiet) if isinstance(quiet, int | float) else inf


def _resets(value: object) -> tuple[str, ...]:
    ids = value.split() if isinstance(value, str) else []
    return tuple(ids[-MOST_RESETS:]) if _names(ids, check_key) else ()


def _names(value: object, check: Callable[[object], str]) -> bool:
    """Whether these are names: whatever they are written to must be able to trust them."""
    if not isinstance(value, list):
        return False
    try:
        return all(map(check, cast("list[object]", value)))
    except InvalidNameError:
        return False


class Unsent:
    """Changes somebody is still to be told of, each key and tag once.

    Attributes:
        keys: with the number of the last addition that named each.
        tags: likewise.
        everything: likewise; 0 where not everything is to be told of.
        counters: the ids of resets of counters, likewise.
        additions: so many there were.
        told: how often some were done.
    """

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.tags: dict[str, int] = {}
        self.everything: int = 0
        self.counters: dict[str, int] = {}
        self.additions: int = 0
        self.told: int = 0

    def __len__(self) -> int:
        return len(self.keys) + len(self.tags) + bool(self.everything or self.counters)

    def add(self, change: Change) -> None:
        """Note one more."""
        self.additions += 1
        if not self.everything:
            self.keys.update(dict.fromkeys(change.keys, self.additions))
            self.tags.update(dict.fromkeys(change.tags, self.additions))
        if change.everything or self.everything or len(self) > MOST_UNSENT:
            self.everything = self.additions
            self.keys.clear()
            self.tags.clear()
        self.counters.update(dict.fromkeys(change.counters, self.additions))
        for oldest in tuple(self.counters)[:-MOST_RESETS]:
            del self.counters[oldest]

    def concerns(self, key: str) -> bool:
        """Whether a key is among them."""
        return bool(self.everything) or key in self.keys

    def parts(self) -> Iterator[Change]:
        """Return all of it, in changes of a handy size."""
        yield from Change(
            keys=tuple(self.keys),
            tags=tuple(self.tags),
            everything=bool(self.everything),
            counters=tuple(self.counters),
        ).parts()

    def as_told(self, change: Change) -> Change:
        """Return a change as others are to hear of it while these are owed to the store."""
        beside = self._beside(change)
        owed = bool(self.everything) or any(noted.keys() & told for noted, told in beside)
        return change._replace(stored=not owed)

    def done(self, change: Change, additions: int) -> None:
        """Forget a part that was told, but for what was added after so many additions."""
        self.told += 1
        for noted, told in self._beside(change):
            for name in told:
                if noted.get(name, additions + 1) <= additions:
                    del noted[name]
        if change.everything and self.everything <= additions:
            self.everything = 0

    def carried_out(self, resets: Iterable[str]) -> None:
        """Forget resets of counters that the store knows."""
        for reset in resets:
            self.counters.pop(reset, None)

    def _beside(self, change: Change) -> tuple[tuple[dict[str, int], tuple[str, ...]], ...]:
        return (
            (self.keys, change.keys),
            (self.tags, change.tags),
            (self.counters, change.counters),
        )


def _chunks(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    listed = tuple(names)
    for at in range(0, len(listed), MOST_NAMES):
        yield listed[at : at + MOST_NAMES]
