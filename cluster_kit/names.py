"""Syntax of names, and how an application's names become queue names."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cluster_kit.errors import InvalidNameError

MAX_NAME_BYTES = 200
"""Longest channel name, bytes of UTF-8."""

MAX_APP_BYTES = 40
"""Longest application name: app, dot, channel and ``.dead`` must fit AMQP's 255 bytes."""

MAX_ID_BYTES = 200
"""Longest message id, bytes of UTF-8."""


_IDS_DRAWN = 128
_HEX_DIGITS = 32  # of an id
_EACH_ID = int(("0" * (_HEX_DIGITS - 1) + "1") * _IDS_DRAWN, 16)
# Version and variant of a UUID4, see RFC 9562, in all of them at once.
_UUID4_FIXED_BITS = 0x4000_8000_0000_0000_0000 * _EACH_ID
_UUID4_FREE_BITS = ((1 << 128) - 1 - 0xF000_C000_0000_0000_0000) * _EACH_ID


def plain(text: str) -> str:
    """Return a text without what a subclass of `str` has made of it.

    A member of ``class Key(str, Enum)`` equals its text, and yet an f-string writes ``Key.LOGIN``:
    it would find another place on a server than its text does.

    >>> from enum import Enum
    >>> plain(Enum("Key", {"LOGIN": "login"}, type=str).LOGIN)
    'login'
    """
    return text if type(text) is str else str.__str__(text)


def check_name(kind: str, name: object, *, limit: int = MAX_NAME_BYTES) -> str:
    """Return `name` as a plain `str` if it is legal, else raise `InvalidNameError` with the reason.

    Legal are 1 to `limit` bytes of UTF-8 without spaces, control characters, ``*`` or ``#``.

    >>> check_name("channel", "mails.send")
    'mails.send'
    """
    if not isinstance(name, str):
        raise InvalidNameError(kind, name, "it must be a string")
    name = plain(name)
    if not name:
        raise InvalidNameError(kind, name, "it is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidNameError(kind, name, "it is not valid Unicode") from None
    if size > limit:
        raise InvalidNameError(kind, name, f"it has {size} bytes, the limit is {limit}")
    if " " in name or not name.isprintable():  # of all spaces only this one is printable
        raise InvalidNameError(kind, name, "spaces and control characters are not allowed")
    if "*" in name or "#" in name:
        wildcards = "wildcards of pub/sub subscriptions" if kind == "channel" else "not allowed"
        raise InvalidNameError(kind, name, f"'*' and '#' are {wildcards}")
    return name


DEAD_SUFFIX = ".dead"
"""What the name of a queue's dead letters ends in."""


def check_channel(channel: object) -> str:
    """Return a channel's name if it is legal: as `check_name`, its last part not ``dead``."""
    name = check_name("channel", channel)
    if name.endswith(DEAD_SUFFIX) or name == DEAD_SUFFIX[1:]:
        reason = "names whose last part is 'dead' belong to the dead letters"
        raise InvalidNameError("channel", channel, reason)
    return name


def check_app(name: object) -> str:
    """Return an application's name if it is legal: as `check_name`, at most 40 bytes, no dot.

    With one, channel ``eu.mails`` of app ``shop`` would be channel ``mails`` of app ``shop.eu``.
    """
    app = check_name("app name", name, limit=MAX_APP_BYTES)
    if "." in app:
        raise InvalidNameError("app name", name, "'.' separates the app from the channel")
    return app


MODE_WORDS = frozenset({"!", "*", "-"})
"""Words of the worker mode, which are no topics."""


def check_topic(topic: object) -> str:
    """Return a worker-mode topic if it is legal: as `check_name`, no comma, no word of the mode.

    >>> check_topic("mails:send")
    'mails:send'
    """
    if isinstance(topic, str) and topic in MODE_WORDS:
        raise InvalidNameError("topic", topic, "it has a meaning of its own in the worker mode")
    name = check_name("topic", topic)
    if "," in name:
        raise InvalidNameError("topic", topic, "',' separates the topics of the worker mode")
    return name


def check_message_id(message_id: object) -> str:
    """Return a message id if it is legal: as `check_name`, wildcards allowed."""
    if isinstance(message_id, str):
        message_id = plain(message_id)
        if not (message_id.isalnum() and message_id.isascii() and len(message_id) <= MAX_ID_BYTES):
            tame = message_id.replace("*", "_").replace("#", "_")
            check_name("message id", tame, limit=MAX_ID_BYTES)
        return message_id
    raise InvalidNameError("message id", message_id, "it must be a string")


def new_id() -> str:
    """Return a fresh message or instance id (UUID4, 32 hexadecimal digits)."""
    try:
        return _ids.pop()
    except IndexError:
        _ids.extend(_draw_ids())
        return new_id()


_ids: list[str] = []  # drawn and not used: asking the system for each one costs more than all else


def _draw_ids() -> list[str]:
    size = _IDS_DRAWN * _HEX_DIGITS
    drawn = int.from_bytes(os.urandom(size // 2))
    digits = f"{drawn & _UUID4_FREE_BITS | _UUID4_FIXED_BITS:0{size}x}"
    return [digits[at : at + _HEX_DIGITS] for at in range(0, size, _HEX_DIGITS)]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.clear)  # or both processes would use the same


@dataclass(frozen=True, slots=True)
class QueueName:
    """The queue of one channel.

    `app` is None for a queue shared between applications, whose name has no prefix.

    >>> QueueName("shop", "mails.send").full
    'shop.mails.send'
    >>> QueueName(None, "audit").dead
    'audit.dead'
    """

    app: str | None
    channel: str
    full: str = field(init=False, compare=False, repr=False)
    """The name of the queue on the broker."""

    def __post_init__(self) -> None:
        full = self.channel if self.app is None else f"{self.app}.{self.channel}"
        object.__setattr__(self, "full", full)  # once: it is asked for with every message

    def __hash__(self) -> int:
        return hash(self.full)

    @property
    def dead(self) -> str:
        """The name of its dead-letter queue."""
        return f"{self.full}{DEAD_SUFFIX}"

    def __str__(self) -> str:
        return self.full


HELPERS = "ck.v1."
"""What the names of the library's own queues and exchanges on a broker begin with."""


def check_queue(queue: QueueName) -> QueueName:
    """Return `queue` unless its full name could be that of one of the library's helpers."""
    if queue.full.startswith(HELPERS):
        reason = f"names that begin with {HELPERS} belong to the library"
        raise InvalidNameError("channel", queue.channel, reason)
    return queue
