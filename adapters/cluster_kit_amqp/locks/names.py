"""What locks have on the broker, as data.

::

    seed --> [ck.v1.locks direct] -- name of the queue --> (ck.v1.lock.<app>.<key>)

A lock is a queue with one token. Its first consumer alone is active and gets the token, and is the
holder until it goes; the token then comes to the next in line. The broker's count of deliveries
grows with that, and so does the fence.
"""

from __future__ import annotations

from cluster_kit_amqp.link import Incoming, Message
from cluster_kit_amqp.topology import NO_LIMIT, PREFIX, Binding, Exchange, Queue, Steps, quorum

EXCHANGE = f"{PREFIX}locks"
BASE = "ck-base"
"""Header: what the deliveries of a token are counted from."""

IDLE_SECONDS = 600
"""After which a lock that nobody has or wants is forgotten, with its count."""

_MOST_TOKENS = 8
_MOST_SEEN = 10_000
_END_OF_FENCES = 2**53  # up to here each is another number to all who may count


def lock_queue(name: str) -> str:
    """Return the queue of a lock, whose name has the application's before it."""
    return f"{PREFIX}lock.{name}"


def lock_steps(queue: str) -> Steps:
    """Return what a lock needs, the limit on deliveries included that keeps a token in front."""
    arguments = {
        **quorum(limit=NO_LIMIT, expires=IDLE_SECONDS * 1000, max_length=_MOST_TOKENS),
        "x-single-active-consumer": True,
    }
    return (
        Exchange(EXCHANGE, "direct"),
        Queue(queue, arguments),
        Binding("queue", queue, EXCHANGE, queue),
    )


def make_token(base: int) -> Message:
    """Return a token. Of two its holder keeps the one with the greater fence."""
    return Message(body=b"", headers={BASE: base})


def fence_of(incoming: Incoming) -> int:
    """Return the fence a delivered token is worth; 0 for a message that is no token.

    >>> token = make_token(1000)
    >>> fence_of(Incoming(message=token, tag=1, redelivered=False))
    1000
    >>> again = Message(body=b"", headers={**token.headers, "x-delivery-count": 3})
    >>> fence_of(Incoming(message=again, tag=1, redelivered=True))
    1003
    >>> fence_of(Incoming(message=make_token(2**62), tag=1, redelivered=False))
    0
    """
    headers = incoming.message.headers
    base, count = headers.get(BASE), headers.get("x-delivery-count", 0)
    if type(base) is not int or type(count) is not int:  # a bool is none
        return 0
    fence = base + (count if incoming.redelivered else 0)
    return fence if 0 < fence < _END_OF_FENCES else 0


class SeenFences:
    """The greatest fence that this instance has had of each lock, of those it used last."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def next(self, name: str, fence: int) -> int:
        """Return `fence`, or one that is greater than all before."""
        last = self._last.get(name, 0)
        return fence if fence > last or last + 1 == _END_OF_FENCES else last + 1

    def note(self, name: str, fence: int) -> None:
        """A lock was had with this fence."""
        self._last.pop(name, None)
        self._last[name] = fence
        if len(self._last) > _MOST_SEEN:
            del self._last[next(iter(self._last))]
