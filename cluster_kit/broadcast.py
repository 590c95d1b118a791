"""What travels as a broadcast, and what its handlers see."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from datetime import datetime

Transport = Literal["ephemeral", "sticky", "stream"]
"""What becomes of messages that an instance cannot be given at once."""

TRANSPORTS: Final[tuple[Transport, ...]] = ("ephemeral", "sticky", "stream")


class NeverSent(asyncio.CancelledError):
    """A publish was cancelled before anything of it had left this process.

    Between an adapter and its service only: the caller sees a plain cancellation.
    """


class Audience(StrEnum):
    """Which instances handle a message. All of them receive it."""

    ALL = "all"
    OTHERS = "others"
    """All but the publisher."""
    SELF = "self"
    """The publisher alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """One message as it travels between a service and an adapter.

    Attributes:
        realm: the service it belongs to; realms do not see each other's channels.
        channel: name without prefix.
        id: the message id users see.
        body: the encoded message, exactly as published.
        content_type: of the body; None when a foreign publisher did not say.
        published_at: seconds since 1970; None when unknown.
        origin: instance that published it; empty when unknown.
        sender: instance that sent it, and numbered it, where that is not `origin`.
        epoch: of the numbering; a new one begins at 1 again. What is before its first dot names
            the process.
        seq: number among what that process sent on this channel, from 1; 0 when it has none.
        after: seconds from the number before to this one; 0 when unknown.
        audience: which instances handle it.
        malformed: metadata that could not be read and counts as missing.
        id_is_stable: False for what a foreign publisher gave no id: each delivery, to each
            instance, makes one up.
    """

    realm: str
    channel: str
    id: str
    body: bytes
    content_type: str | None = None
    published_at: float | None = None
    origin: str = ""
    sender: str = ""
    epoch: str = ""
    seq: int = 0
    after: float = 0.0
    audience: Audience = Audience.ALL
    malformed: tuple[str, ...] = ()
    id_is_stable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What an instance wants to receive: a channel, or a pattern of channels, on a transport."""

    realm: str
    pattern: str
    transport: Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a handler may know about the message it is given.

    Attributes:
        channel: name without prefix.
        id: message id.
        origin: instance that published it; empty for a foreign publisher.
        seq: number among what was sent on this channel by that instance, or by the one that
            sent the message on its behalf, from 1; 0 when unknown.
        published_at: aware UTC time; None when a foreign publisher did not say.
        id_is_stable: whether the message has `id` at every delivery and in every instance. Not so
            when a foreign publisher gave it none.
    """

    channel: str
    id: str
    origin: str
    seq: int
    published_at: datetime | None
    id_is_stable: bool = True
