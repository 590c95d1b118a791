"""Deliveries of one channel, and how their acknowledgements are joined."""

from __future__ import annotations

from cluster_kit_amqp.link import ChannelDown
from cluster_kit_amqp.plane import methods


class Settlements:
    """What was delivered on a channel and not settled, and what is to be acknowledged.

    Acknowledgements of one turn of the event loop are joined: where all unsettled deliveries up to
    some tag are among them, one "multiple" speaks for these. It may name only a tag that is
    unsettled at the broker, or that closes the channel; and whatever is unsettled below the tag
    counts as acknowledged by it, so nothing else may be there.

    Args:
        channel: its number.

    Attributes:
        unsettled: what was delivered, in its order, which is that of the tags (basic.deliver).
    """

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self.unsettled: dict[int, None] = {}
        self._acked: set[int] = set()

    def ack(self, tag: int) -> int:
        """Acknowledge with the next `take`; return of how many. 0: it is not unsettled."""
        if tag not in self.unsettled or tag in self._acked:
            return 0
        self._acked.add(tag)
        return len(self._acked)

    def requeue(self, tag: int, *, multiple: bool) -> bytes | None:
        """Return what gives deliveries back, behind the acknowledgements before it.

        None: there is nothing to give back.
        """
        acks = self.take()
        if multiple:
            given = [known for known in self.unsettled if known <= tag]
        else:
            given = [tag] if tag in self.unsettled else []
        for known in given:
            del self.unsettled[known]
        if not given:
            return acks or None
        return acks + methods.requeue(self._channel, max(given), multiple=multiple)

    def reject(self, tag: int) -> bytes | None:
        """Return what gives one delivery back so that every broker counts it; as `requeue`."""
        if tag not in self.unsettled:
            return None
        acks = self.take()
        del self.unsettled[tag]
        return acks + methods.reject(self._channel, tag)

    def take(self) -> bytes:
        """Return the frames of the acknowledgements since the last call."""
        acked = self._acked
        if not acked:
            return b""
        self._acked = set()
        joined: list[int] = []
        for tag in self.unsettled:
            if tag not in acked:
                break
            joined.append(tag)
        frames: list[bytes] = []
        if joined:
            frames.append(methods.ack(self._channel, joined[-1], multiple=len(joined) > 1))
            acked.difference_update(joined)
        frames += [methods.ack(self._channel, tag, multiple=False) for tag in sorted(acked)]
        for tag in joined:
            del self.unsettled[tag]
        for tag in acked:
            del self.unsettled[tag]
        return b"".join(frames)


def not_ours(tag: int) -> ChannelDown:
    """Return the error for a delivery that cannot be settled."""
    return ChannelDown(0, f"delivery {tag} is not unsettled on this channel", sent=False)
