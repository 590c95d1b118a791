"""The channel everything is published on, and what can be said of a publish that fails on it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from cluster_kit.errors import (
    ConnectionLost,
    PublishBlocked,
    PublishRefused,
    PublishUnconfirmed,
    TransportError,
)
from cluster_kit.names import new_id
from cluster_kit_amqp.control.seam import ACCESS_REFUSED, NOT_FOUND
from cluster_kit_amqp.link import Channel, ChannelDown, Link, LinkError, Refused

if TYPE_CHECKING:
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.connection.supervised import Connection

PAUSE_AFTER_CHANNEL = 0.05  # seconds
_TOO_LARGE = re.compile(r"message size \d+ is larger than configured max size (?P<limit>\d+)")
_REFUSED_FOR = 5.0  # seconds; each refusal costs all other publishes their channel
_MOST_LOST_CHANNELS = 5
_SAYS_WHERE = re.compile(r"(topic|exchange) '")
_CUT = "..."  # the end of a text that was longer than 255 bytes
_NEW_FOR = 1.0  # seconds a channel is not replaced


class Goal(Protocol):
    """Where a message goes, in words."""

    def __str__(self) -> str:
        """Return the words."""
        ...


class State(IntEnum):
    """How far a publish has come. It only moves forward, towards what is known for certain."""

    WAITING = 0
    SENT = 1
    REFUSED = 2
    UNKNOWN = 3
    CONFIRMED = 4


@dataclass(slots=True)
class Progress:
    """What has happened to one publish so far.

    Attributes:
        id: of the message, as users see it.
        goal: where it goes, for people.
        size: of its body, bytes.
        started: when, on the monotonic clock.
        copy_id: identity of what is stored.
        state: how far it has come; while it is waiting, nothing of it has left.
        returned: a copy came back.
        lost_channels: how often its channel went away, and no other publish was the reason.
        nacks: how often a queue did not take it.
        trouble: what went wrong last.
    """

    id: str
    goal: Goal
    size: int
    started: float
    copy_id: str = field(default_factory=new_id)
    state: State = State.WAITING
    returned: bool = False
    lost_channels: int = 0
    nacks: int = 0
    trouble: str = ""

    @property
    def unknown(self) -> bool:
        """Whether a copy was sent and got no answer."""
        return self.state is State.UNKNOWN

    def move(self, state: State) -> None:
        """Go on to `state`, unless it has come farther."""
        self.state = max(self.state, state)

    def refused(self, error: LinkError) -> PublishRefused:
        """Return the error for a message the broker does not take."""
        return PublishRefused(
            f"the broker refused message {self.id} for {self.goal}: {error.reason}"
        )

    def unfinished(self, problem: TransportError) -> TransportError:
        """Return `problem`, unless an earlier copy may be stored: then the outcome is unknown."""
        return PublishUnconfirmed(self.id, str(problem)) if self.unknown else problem


class _Forbidden(NamedTuple):
    """What the broker refuses: messages of one routing key, or all where `key` is None."""

    exchange: str
    key: str | None

    @classmethod
    def named_in(cls, error: ChannelDown, exchange: str, key: str) -> Self | None:
        """Return what an error says of messages to `exchange` with `key`; None: it is not they.

        The error ends the channel for everybody, and only its text tells whose doing that was.
        """
        if error.code in {0, NOT_FOUND}:
            return None
        _, topic, said = error.reason.partition(" access to topic ")
        if not topic:
            return cls(exchange, None) if f"exchange '{exchange}'" in error.reason else None
        ours = f"'{key}' in exchange '{exchange}'"
        cut = said.endswith(_CUT) and ours.startswith(said.removesuffix(_CUT).rstrip("\ufffd"))
        return cls(exchange, key) if cut or said.startswith(ours) else None


def _is_of_others(error: ChannelDown, exchange: str) -> bool:
    """Whether an error that names nothing of a publish was another one's doing for certain."""
    if error.code == NOT_FOUND and f"exchange '{exchange}'" in error.reason:
        return False
    known = error.code in {ACCESS_REFUSED, NOT_FOUND}
    return known and _SAYS_WHERE.search(error.reason) is not None


class PublishingChannel:
    """The publishing channel of a connection. All publishes of a link share one.

    Attributes:
        largest_body: that the broker takes, bytes; None while nothing was too large.
    """

    def __init__(self, connection: Connection, context: AdapterContext) -> None:
        self._connection, self._clock = connection, context.clock
        self._channel: Channel | None = None
        self._former: Channel | None = None
        self._opened_at = 0.0
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._refusing: dict[_Forbidden, tuple[float, str]] = {}
        self._generation = 0
        self.largest_body: int | None = None

    def channel_of(self, link: Link, exchange: str, key: str, size: int) -> Channel | None:
        """Return the channel, when nothing must be looked at before it is used: the usual case."""
        channel = self._channel
        if self._link is not link or channel is None or not channel.open:
            return None
        if self._refusing and self.refusal(exchange, key) is not None:
            return None
        if self.largest_body is not None and size > self.largest_body:
            return None
        return channel

    def refusal(self, exchange: str, key: str) -> str | None:
        """Return the broker's reason, where it refused such a message a moment ago."""
        if self._refusing:
            for kind in (_Forbidden(exchange, None), _Forbidden(exchange, key)):
                until, reason = self._refusing.get(kind, (0.0, ""))
                if self._clock.monotonic() < until:
                    return reason
                self._refusing.pop(kind, None)
        return None

    async def admit(self, exchange: str, key: str, progress: Progress) -> None:
        """Raise what is known to happen to a message.

        Raises:
            Refused: the broker took none of its kind a moment ago.
            PublishRefused: it is too large.
        """
        reason = self.refusal(exchange, key)
        if reason is not None:
            await self._clock.sleep(PAUSE_AFTER_CHANNEL)  # a caller that insists waits
            raise Refused(reason)
        self.check_size(progress)

    def check_size(self, progress: Progress) -> None:
        """Raise `PublishRefused` for a message that is known to be too large."""
        if self.largest_body is not None and progress.size > self.largest_body:
            raise self._too_large(progress)

    async def open(self, link: Link) -> Channel:
        """Return the channel of a link, opened where it is not. Raises `LinkError`."""
        async with self._opening:
            if self._channel is None or self._link is not link or not self._channel.open:
                self._channel = await link.open_channel(confirms=True)
                self._link, self._opened_at = link, self._clock.monotonic()
                if self._generation != self._connection.generation:  # its broker may take more
                    self._generation, self.largest_body = self._connection.generation, None
                self._channel.on_closed(partial(self._closed, self._channel))
            return self._channel

    async def renew(self) -> None:
        """Publish on another channel from now on, unless this one is new.

        RabbitMQ 3 goes on to take nothing for a queue on a channel whose first publish to it met
        it without a leader, also when it has one again. What is under way stays under way.
        """
        channel = self._channel
        if channel is None or self._clock.monotonic() - self._opened_at < _NEW_FOR:
            return
        self._channel = self._link = None
        former, self._former = self._former, channel
        if former is not None:
            await former.close()

    def _closed(self, channel: Channel, _: str) -> None:
        """Let go of the channel, and with it of a link that may be lost."""
        if self._channel is channel:
            self._channel = self._link = None

    # --- what went wrong ---------------------------------------------------------------------

    def blame(
        self, error: ChannelDown, exchange: str, key: str, progress: Progress
    ) -> PublishRefused | None:
        """Note the loss of a publish's channel; return the error if this publish ended it."""
        progress.trouble = error.reason
        if (match := _TOO_LARGE.search(error.reason)) is not None:
            self.largest_body = int(match["limit"])
            if progress.size > self.largest_body:
                return self._too_large(progress)
        refused = _Forbidden.named_in(error, exchange, key)
        if refused is not None:
            self._remember(refused, error.reason)
        elif not _is_of_others(error, exchange):
            progress.lost_channels += 1
        if refused is not None or progress.lost_channels > _MOST_LOST_CHANNELS:
            return progress.refused(error)
        if error.sent:
            progress.move(State.UNKNOWN)
        return None

    def _remember(self, refused: _Forbidden, reason: str) -> None:
        now = self._clock.monotonic()
        self._refusing = {old: since for old, since in self._refusing.items() if now < since[0]}
        self._refusing[refused] = (now + _REFUSED_FOR, reason)

    def _too_large(self, progress: Progress) -> PublishRefused:
        return PublishRefused(
            f"message {progress.id} has {progress.size} bytes, "
            f"the broker takes at most {self.largest_body}"
        )

    def out_of_time(self, timeout: float, progress: Progress) -> TransportError:
        """Return the error for a publish that has used up its time."""
        within = f"within {timeout:g} s"
        trouble = f" ({progress.trouble})" if progress.trouble else ""
        if progress.state in {State.SENT, State.UNKNOWN}:
            return PublishUnconfirmed(progress.id, f"no confirm {within}{trouble}")
        if progress.nacks:
            reason = f"the broker did not take message {progress.id} for {progress.goal} {within}"
            return PublishRefused(f"{reason}{trouble}")
        link = self._connection.link
        if link is None:
            return ConnectionLost(f"no connection {within}{trouble}; nothing was sent")
        if link.blocked is not None:
            return PublishBlocked(f"the broker blocks publishers: {link.blocked}; nothing was sent")
        return ConnectionLost(f"not stored {within}{trouble}; nothing was sent")
