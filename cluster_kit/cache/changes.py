"""What is invalidated, and what is still to be told of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

MOST_UNSENT = 10_000
"""Keys and tags that wait to be told; beyond them the whole cache is invalidated instead."""

MOST_NAMES = 500
"""Keys and tags in one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Keys and tags that are invalidated, or the whole cache.

    Attributes:
        keys: of entries.
        tags: of entries.
        everything: all of the cache.
        stored: whether the store knows.
    """

    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    everything: bool = False
    stored: bool = True

    def message(self) -> dict[str, object]:
        """Return what travels to other instances: names, never values."""
        return {"k": self.keys, "t": self.tags, "all": self.everything, "stored": self.stored}


def from_message(message: object) -> Change:
    """Return the change another instance tells of.

    What cannot be read is taken for all: another release may know more kinds.
    """
    if not isinstance(message, dict):
        return Change(everything=True)
    message = cast("dict[str, object]", message)
    keys, tags, stored = message.get("k", ()), message.get("t", ()), message.get("stored") is True
    if message.get("all") is not False or not (_names(keys) and _names(tags)):
        return Change(everything=True, stored=stored)
    return Change(
        keys=tuple(cast("list[str]", keys)), tags=tuple(cast("list[str]", tags)), stored=stored
    )


def _names(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(name, str) for name in cast("list[object]", value)
    )


class Unsent:
    """Changes somebody is still to be told of, each key and tag once."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.tags: dict[str, None] = {}
        self.everything: bool = False

    def __len__(self) -> int:
        return len(self.keys) + len(self.tags) + self.everything

    def add(self, change: Change) -> None:
        """Note one more."""
        if not self.everything:
            self.keys.update(dict.fromkeys(change.keys))
            self.tags.update(dict.fromkeys(change.tags))
        if change.everything or len(self) > MOST_UNSENT:
            self.everything = True
            self.keys.clear()
            self.tags.clear()

    def concerns(self, key: str) -> bool:
        """Whether a key is among them."""
        return self.everything or key in self.keys

    def parts(self, *, stored: bool) -> Iterator[Change]:
        """Return all of it, in changes of a handy size."""
        if self.everything:
            yield Change(everything=True, stored=stored)
        for keys in _chunks(self.keys):
            yield Change(keys=keys, stored=stored)
        for tags in _chunks(self.tags):
            yield Change(tags=tags, stored=stored)

    def done(self, change: Change) -> None:
        """Forget a part that was told."""
        for key in change.keys:
            self.keys.pop(key, None)
        for tag in change.tags:
            self.tags.pop(tag, None)
        if change.everything:
            self.everything = False


def _chunks(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    listed = tuple(names)
    for at in range(0, len(listed), MOST_NAMES):
        yield listed[at : at + MOST_NAMES]
