"""Turns what a caller publishes into a message, and sends it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster_kit.broadcast import Audience, Broadcast, NeverSent
from cluster_kit.errors import (
    ConfigurationError,
    ConnectionLost,
    MessageTooLargeError,
    PublishRefused,
    TopologyError,
)
from cluster_kit.names import check_name, new_id

if TYPE_CHECKING:
    from cluster_kit.clock import Clock
    from cluster_kit.codec import Codec
    from cluster_kit.ports import Emit, PubSubAdapter
    from cluster_kit.pubsub.numbering import Numbering
    from cluster_kit.pubsub.transports import Transports
    from cluster_kit.settings import PubSubSettings

_NEVER_SENT = (ConnectionLost, NeverSent, TopologyError)
"""Errors that say that nothing of the message has left this process."""


class Publisher:
    """Makes the messages of one instance in one realm, and has them sent."""

    def __init__(
        self,
        realm: str,
        numbering: Numbering,
        settings: PubSubSettings,
        transports: Transports,
        codec: Codec,
        report: Emit,
    ) -> None:
        self._report = report
        self._realm = realm
        self._settings = settings
        self._transports = transports
        self._codec = codec
        self._numbering = numbering

    def message(self, channel: str, payload: object, audience: Audience, clock: Clock) -> Broadcast:
        """Return the message as it will travel, but for its number.

        Raises:
            InvalidNameError: the channel's name is malformed, or has wildcards.
            EncodeError: the payload has no form in the codec.
            MessageTooLargeError: it has too many bytes.
        """
        name = check_name("channel", channel)
        body = self._codec.encode(payload)
        limit = self._settings.max_payload_bytes
        if len(body) > limit:
            raise MessageTooLargeError("the message", len(body), limit)
        return Broadcast(
            realm=self._realm,
            channel=name,
            id=new_id(),
            body=body,
            content_type=self._codec.content_type,
            published_at=clock.wall(),
            origin=self._numbering.instance_id,
            audience=audience,
        )

    async def send(self, message: Broadcast, adapter: PubSubAdapter) -> None:
        """Number a message and send it. Raises as `PubSubAdapter.publish`.

        It has its number from here on, not from its making: in between, others may be sent, and
        a message that is never sent leaves no hole.
        """
        transport = self._transports.of(message.channel)
        number = self._numbering.next(message.channel)
        sender = (
            "" if message.origin == self._numbering.instance_id else self._numbering.instance_id
        )
        epoch, seq, after = number
        numbered = replace(message, sender=sender, epoch=epoch, seq=seq, after=after)
        timeout = self._settings.publish_timeout
        try:
            await adapter.publish(numbered, transport=transport, timeout=timeout)
        except (asyncio.CancelledError, Exception) as exc:
            if _was_never_sent(exc):
                self._numbering.give_back(message.channel, number)
            else:
                self._numbering.used(message.channel, number)
            if isinstance(exc, NeverSent):  # asyncio.timeout knows the plain one alone
                raise asyncio.CancelledError(*exc.args) from None
            raise
        self._numbering.used(message.channel, number)
        self._report(
            "broadcast.published",
            kind=self._realm,
            channel=message.channel,
            id=message.id,
            transport=transport,
        )


def _was_never_sent(error: BaseException) -> bool:
    """Whether no byte of the message has left: only then may its number be used again."""
    refused_here = isinstance(error, PublishRefused) and not error.sent
    return refused_here or isinstance(error, _NEVER_SENT)


def check_audience(skip_self: object, only_self: object) -> Audience:
    """Return the audience that two options of a publish describe.

    Raises:
        ConfigurationError: both are set, or one is no bool.
    """
    for name, value in (("skip_self", skip_self), ("only_self", only_self)):
        if not isinstance(value, bool | None):
            raise ConfigurationError(f"{name} must be a bool, not {type(value).__name__}")
    if only_self:
        if skip_self:
            raise ConfigurationError("skip_self and only_self together reach nobody")
        return Audience.SELF
    return Audience.ALL if skip_self is False else Audience.OTHERS
