"""One claim: a consumer in the line of a lock's queue, and the token once it has come."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cluster_kit_amqp.link import Incoming, LinkError
from cluster_kit_amqp.locks.names import fence_of, lock_queue

if TYPE_CHECKING:
    from cluster_kit.ports import Claim
    from cluster_kit_amqp.locks.desk import Desk, Seat

log = logging.getLogger(__name__)

TOKEN_SECONDS = 300.0
"""After which a holder takes a fresh token: brokers take back what stays unacknowledged."""

_PREFETCH = 16
_WENT_BACK = (
    "lock %r: its fence went back to %d; it is held by %d. The clocks of instances differ, or a "
    "policy of the broker drops messages of its queue"
)


class Session:
    """A claim at the broker, on a channel of its own.

    Attributes:
        seat: its channel.
        fence: by which it is held; 0 before.
        came: set when the token has come, or never will.
        gone: done, with the reason, when a token that had come is ours no more.
        ends: reading of the desk's clock at which the holder's ttl is over; None while nobody
            has been told of the token.
    """

    def __init__(self, desk: Desk, claim: Claim, seat: Seat) -> None:
        self.claim = claim
        self.seat = seat
        self.fence = 0
        self.came = asyncio.Event()
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ends: float | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._desk = desk
        self._queue = lock_queue(claim.name)
        self._consumer = ""
        self._token: Incoming | None = None
        self._since = 0.0
        self._given_back = False
        self._refreshing: asyncio.Task[None] | None = None
        seat.on_lost = self._lost

    # --- in line -----------------------------------------------------------------------------

    @property
    def lost(self) -> str | None:
        """Why it is of no use any more."""
        if self.gone.cancelled():
            return "it was given back"
        return self.gone.result() if self.gone.done() else None

    @property
    def granted(self) -> bool:
        """Whether the token is ours."""
        return self._token is not None and not self.gone.done()

    @property
    def _worth(self) -> int:
        """Fence of the token."""
        return 0 if self._token is None else fence_of(self._token)

    async def stand(self) -> None:
        """Get in line. Raises `LinkError`."""
        self._consumer = await self._desk.consume(
            self.seat, self._queue, self._received, self._cancelled, prefetch=_PREFETCH
        )

    def _received(self, _: str, incoming: Incoming) -> None:
        channel = self.seat.channel
        if self._given_back:  # and a token with it: this one was too many
            channel.ack(incoming.tag)
            return
        fence = fence_of(incoming)
        held = self._token
        if not fence or (held is not None and fence <= fence_of(held)):  # no token, or one too many
            channel.ack(incoming.tag)
            return
        self._token, self._since = incoming, self._desk.clock.monotonic()
        self.came.set()
        if held is not None:
            channel.ack(held.tag)

    def _cancelled(self, _: str) -> None:
        self._lost("the broker took the lock back: its queue was deleted, moved or timed out")
        self._desk.drop(self.seat)

    def _lost(self, reason: str) -> None:
        if not self.gone.done():
            self.gone.set_result(reason)
        self.came.set()

    # --- holding -----------------------------------------------------------------------------

    def hold(self) -> bool:
        """The token is for somebody. False when it is worth less than another was here before."""
        worth, name, seen = self._worth, self.claim.name, self._desk.fences
        if not self.fence:
            self.fence = seen.next(name, worth)
            seen.note(name, self.fence)
            if worth < self.fence:
                log.warning(_WENT_BACK, name, worth, self.fence)
        return worth >= self.fence

    def refresh(self) -> None:
        """See to a fresh token where ours is old, or worth less than what it is held by.

        Nobody waits for it: a broker that is short of memory or disk takes no token until it is
        better, and the lock is ours until it takes the old one back. What fails is tried at the
        next renewal.
        """
        age = self._desk.clock.monotonic() - self._since
        if self._refreshing is None and (age >= TOKEN_SECONDS or self._worth < self.fence):
            name = f"amqp lock {self.claim.name} has a fresh token"
            self._refreshing = self._desk.tasks.spawn(self._refresh(), name=name)
            self.gone.add_done_callback(self._refresh_no_more)

    async def _refresh(self) -> None:
        try:
            base = max(self._worth, self.fence) + 1
            await self._desk.seed(self.claim.name, base=base)
        except LinkError as exc:
            log.warning("lock %r keeps its old token: %s", self.claim.name, exc.reason)
        finally:
            self._refreshing = None

    def _refresh_no_more(self, _: object) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()

    # --- the end -----------------------------------------------------------------------------

    async def give_back(self) -> None:
        """Let the next in line have the token. It has it, whatever is raised. Raises `LinkError`.

        A caller that gives up waiting for the broker's word closes the channel by that, which
        returns the token too.
        """
        token, self._token = self._token, None
        self._end()
        if token is None:
            self._desk.drop(self.seat)
            return
        self._given_back = True
        await self.seat.channel.cancel_returning(self._consumer, token.tag)
        self._desk.put_back(self.seat)

    def leave(self) -> None:
        """Get out of the line, whether the token has come or not."""
        self._end()
        self._desk.drop(self.seat)

    def _end(self) -> None:
        self.seat.on_lost = None
        if self.timer is not None:
            self.timer.cancel()
        if not self.gone.done():
            self.gone.cancel()
