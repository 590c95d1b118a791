"""A broadcast as an AMQP message, and any AMQP message as a broadcast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.broadcast import Audience, Broadcast
from cluster_kit.names import new_id
from cluster_kit_amqp.link import Message
from cluster_kit_amqp.wire import given_id

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
    headers = message.headers
    found = given_id(message)
    published = _whole(headers, "ck-published-at", _MAX_MS)
    origin, epoch = _text(headers, "ck-origin"), _text(headers, "ck-epoch")
    seq = _whole(headers, "ck-seq", _MAX_NUMBER) if origin and epoch else None
    return Broadcast(
        realm=realm,
        channel=incoming.key,
        id=found or new_id(),
        id_is_stable=found is not None,
        body=message.body,
        content_type=message.content_type or None,
        published_at=message.timestamp if published is None else published / 1000,
        origin=origin,
        sender=_text(headers, "ck-sender"),
        epoch=epoch,
        seq=seq or 0,
        audience=_AUDIENCES.get(_text(headers, "ck-to"), Audience.ALL),
    )


def _whole(headers: Mapping[str, object], name: str, most: int) -> int | None:
    value = headers.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= most else None


def _text(headers: Mapping[str, object], name: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT else ""
