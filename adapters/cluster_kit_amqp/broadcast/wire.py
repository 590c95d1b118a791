"""A broadcast as an AMQP message, and any AMQP message as a broadcast."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cluster_kit.broadcast import Audience, Broadcast
from cluster_kit.errors import InvalidNameError
from cluster_kit.names import check_message_id, new_id
from cluster_kit_amqp.link import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_kit.broadcast import Transport
    from cluster_kit_amqp.link import Incoming

_MAX_MS = 253_402_300_799_000  # the end of the year 9999, the last a datetime can be
_MAX_NUMBER = 2**63 - 1
_MAX_TEXT = 255
_AUDIENCES = {audience.value: audience for audience in Audience}


def to_message(broadcast: Broadcast, transport: Transport, *, copy_id: str, app: str) -> Message:
    """Return the message of a broadcast.

    Args:
        broadcast: what travels.
        transport: it travels on; one that keeps messages keeps them over the broker's end.
        copy_id: identity of what is stored.
        app: the publishing application.
    """
    headers: dict[str, object] = {
        "ck-id": broadcast.id,
        "ck-origin": broadcast.origin,
        "ck-epoch": broadcast.epoch,
        "ck-seq": broadcast.seq,
    }
    if after := int(
        broadcast.after * 1000
    ):  # rounded down: nothing is taken to be older than it is
        headers["ck-after-ms"] = min(after, _MAX_MS)
    if broadcast.sender:
        headers["ck-sender"] = broadcast.sender
    if broadcast.audience is not Audience.ALL:
        headers["ck-to"] = broadcast.audience.value
    if broadcast.published_at is not None:
        headers["ck-published-at"] = round(broadcast.published_at * 1000)
    return Message(
        body=broadcast.body,
        headers=headers,
        message_id=copy_id,
        content_type=broadcast.content_type,
        app_id=app,
        timestamp=broadcast.published_at,
        persistent=transport != "ephemeral",
    )


def to_broadcast(incoming: Incoming, realm: str) -> Broadcast:
    """Return what a delivered message says, whoever sent it. Never raises.

    Metadata that is malformed or out of bounds counts as missing; numbers without an origin do
    too, for they are nobody's.
    """
    message = incoming.message
    read = _Metadata(message.headers)
    given = read.id(message.message_id)
    published = read.whole("ck-published-at", _MAX_MS)
    origin, epoch, seq = read.text("ck-origin"), read.text("ck-epoch"), read.number("ck-seq")
    if seq and not (origin and epoch):
        read.malformed.append("ck-seq")
        seq = 0
    return Broadcast(
        realm=realm,
        channel=incoming.key,
        id=given or new_id(),
        id_is_stable=given is not None,
        body=message.body,
        content_type=message.content_type or None,
        published_at=message.timestamp if published is None else published / 1000,
        origin=origin,
        sender=read.text("ck-sender"),
        epoch=epoch,
        seq=seq,
        after=(read.whole("ck-after-ms", _MAX_MS) or 0) / 1000,
        audience=read.audience("ck-to"),
        malformed=tuple(read.malformed),
    )


class _Metadata:
    """Reads headers, and remembers the names of those that are malformed."""

    def __init__(self, headers: Mapping[str, object]) -> None:
        self._headers = headers
        self.malformed: list[str] = []

    def whole(self, name: str, most: int, least: int = 0) -> int | None:
        value = self._headers.get(name)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.malformed.append(name)
        return None

    def number(self, name: str) -> int:
        return self.whole(name, _MAX_NUMBER, least=1) or 0

    def text(self, name: str) -> str:
        value = self._headers.get(name, "")
        if isinstance(value, str) and len(value) <= _MAX_TEXT:
            return value
        self.malformed.append(name)
        return ""

    def audience(self, name: str) -> Audience:
        value = self.text(name)
        if value and value not in _AUDIENCES:
            self.malformed.append(name)
        return _AUDIENCES.get(value, Audience.ALL)

    def id(self, other: object) -> str | None:
        """Return the id users see, a foreign publisher's being the message's own; None without."""
        for candidate in (self._headers.get("ck-id"), other):
            with suppress(InvalidNameError):
                return check_message_id(candidate)
        if "ck-id" in self._headers:
            self.malformed.append("ck-id")
        return None
