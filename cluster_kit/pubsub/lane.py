"""The way of messages to one handler: in order, one at a time, never too many."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from math import inf
from typing import TYPE_CHECKING

from cluster_kit.broadcast import Event
from cluster_kit.clock import utc
from cluster_kit.errors import DecodeError
from cluster_kit.handler import conclude
from cluster_kit.pubsub.debounce import Debouncer, payload_key
from cluster_kit.pubsub.gaps import GapTeller
from cluster_kit.supervisor import being_cancelled

if TYPE_CHECKING:
    from cluster_kit.broadcast import Broadcast
    from cluster_kit.handler import Handler
    from cluster_kit.pubsub.context import Options, PubSubContext
    from cluster_kit.pubsub.gaps import Told

log = logging.getLogger(__name__)

SLICE = 16
"""Messages handled before others get their turn, where a handler never waits."""

_LAST_WAIT = 1.0  # seconds for what was cancelled to end

_ON_ITS_WAY = 5.0
"""Seconds a message takes at most: when one was sent is told by the next, and only so well."""


class Lane:
    """Buffers the messages of a subscription and calls its handler with each.

    It begins held back: messages gather, none is handled before `release`.

    Attributes:
        name: channel or pattern, as subscribed.
        bound_at: on the clock; it must be given all that was sent since. Infinite until then.
    """

    def __init__(
        self, name: str, handler: Handler, options: Options, around: PubSubContext
    ) -> None:
        self.name = name
        self.bound_at: float = inf
        self._handler = handler
        self._options = options
        self._around = around
        self._buffer: deque[tuple[float, Broadcast]] = deque()
        self._turn = asyncio.Lock()
        self._debouncer = Debouncer(
            around.clock,
            around.supervisor,
            self._append,
            name=f"{around.kind}:{name}:debounce",
        )
        self._gaps = GapTeller(name, options.on_gap, self._turn, around)
        self._runner: asyncio.Task[None] | None = None
        self._dropped: dict[str, int] = {}
        self._heard = False
        self._held = True
        self._closed = False

    # --- how it is ---

    @property
    def waiting(self) -> int:
        """How many messages wait, for the handler or for their debounce."""
        return len(self._buffer) + len(self._debouncer)

    @property
    def lag(self) -> float:
        """Seconds the oldest message in line has waited."""
        return self._around.clock.monotonic() - self._buffer[0][0] if self._buffer else 0.0

    @property
    def trouble(self) -> str | None:
        """What is wrong; None while nothing is."""
        if not self._dropped:
            return None
        dropped = sum(self._dropped.values())
        return f"subscription {self.name} cannot keep up: {dropped} messages dropped"

    # --- in ---

    def bound(self) -> None:
        """All that is sent from now on reaches this instance; what was sent before may not."""
        self.bound_at = min(self.bound_at, self._around.clock.monotonic())

    def should_have(self, sent: float) -> bool:
        """Whether it must have been given what was sent then, which may be said too late."""
        return self.bound_at + (0.0 if self._heard else _ON_ITS_WAY) < sent

    def offer(self, message: Broadcast) -> None:
        """Take a message, or count it as dropped when too many wait."""
        self._heard = self._heard or self.bound_at < inf
        if self._closed:
            return
        options = self._options
        key = payload_key(message) if options.debounce else None
        if (key is None or not self._debouncer.holds(key)) and self._is_full():
            self._drop(message)
        elif key is None:
            self._append(message)
        else:
            self._debouncer.hold(key, message, options.debounce, options.max_wait)

    def note_gap(self, channels: list[str], reason: str, told: Told | None = None) -> None:
        """Have the subscription told that messages of `channels` may be missing."""
        if not self._closed:
            self._around.report(
                "broadcast.gap",
                kind=self._around.kind,
                channel=", ".join(channels),
                subscription=self.name,
                reason=reason,
            )
            self._gaps.note(channels, reason, told)

    def change(self, options: Options) -> None:
        """Use other options from now on."""
        self._options = options
        self._gaps.on_gap = options.on_gap

    def release(self) -> None:
        """Begin to call the handler."""
        self._held = False
        self._gaps.release()
        self._wake()

    def _is_full(self) -> bool:
        return self.waiting >= self._around.buffer_size

    def _drop(self, message: Broadcast) -> None:
        if not self._dropped:
            text = "subscription %s cannot keep up: %d messages wait, newer ones are dropped"
            log.warning(text, self.name, self.waiting)
        self._dropped[message.channel] = self._dropped.get(message.channel, 0) + 1
        self._around.report(
            "broadcast.dropped",
            kind=self._around.kind,
            channel=message.channel,
            id=message.id,
            subscription=self.name,
        )

    def _append(self, message: Broadcast) -> None:
        self._buffer.append((self._around.clock.monotonic(), message))
        self._wake()

    def _wake(self) -> None:
        if self._buffer and self._runner is None and not self._held and not self._closed:
            name = f"{self._around.kind}:{self.name}"
            self._runner = self._around.supervisor.spawn(self._run(), name=name)

    # --- out ---

    async def _run(self) -> None:
        handled = 0
        try:
            while self._buffer:
                async with self._turn:
                    if self._buffer:
                        await self._handle(self._buffer.popleft()[1])
                handled += 1
                if handled % SLICE == 0:
                    await asyncio.sleep(0)
        finally:
            self._runner = None
            if self._buffer:  # the handler ended its own task: others follow in another one
                asyncio.get_running_loop().call_soon(self._wake)
            else:
                self._caught_up()

    def _caught_up(self) -> None:
        if self._dropped and not self._closed:
            dropped, self._dropped = self._dropped, {}
            total = sum(dropped.values())
            log.warning("subscription %s goes on after %d dropped messages", self.name, total)
            self.note_gap(list(dropped), f"{total} messages came while the buffer was full")

    async def _handle(self, message: Broadcast) -> None:
        around = self._around
        begun = around.clock.monotonic()
        try:
            payload = self._handler.decode(message.body, message.content_type)
            event = _event(message) if self._handler.needs_delivery else None
            result = await self._handler.bind(payload, event, around.supervisor)()
            if result is not None:
                await conclude(result)
        except KeyboardInterrupt:
            raise
        except asyncio.CancelledError as exc:
            self._failed(message, exc)
            if being_cancelled():
                raise
        except BaseException as exc:  # sys.exit() in a handler ends the call only
            if self._is_thrown_away():
                raise
            self._failed(message, exc)
        else:
            around.report(
                "broadcast.delivered",
                kind=around.kind,
                channel=message.channel,
                id=message.id,
                subscription=self.name,
                seconds=around.clock.monotonic() - begun,
            )

    def _is_thrown_away(self) -> bool:
        """Whether it is this coroutine that is ended, by whoever drops the event loop."""
        try:
            return asyncio.current_task() is not self._runner
        except RuntimeError:  # no loop runs any more
            return True

    def _failed(self, message: Broadcast, error: BaseException) -> None:
        place = (self._handler.name, message.channel, message.id)
        if isinstance(error, DecodeError):
            log.warning("handler %s on channel %s cannot take message %s: %s", *place, error)
        elif self._closed:
            log.warning("handler %s on channel %s was cut short at message %s", *place)
        else:
            log.error("handler %s on channel %s failed at message %s", *place, exc_info=error)
        self._around.report(
            "broadcast.failed",
            kind=self._around.kind,
            channel=message.channel,
            id=message.id,
            subscription=self.name,
            error=type(error).__name__,
        )

    # --- end ---

    def shut(self) -> None:
        """Take nothing more, and begin no call any more. What waits is forgotten."""
        self._closed = True
        left = self._debouncer.cancel() + len(self._buffer)
        self._buffer.clear()
        if left:
            log.info("subscription %s closes with %d messages waiting", self.name, left)

    async def close(self, grace: float) -> None:
        """Stop for good: a call under way has `grace` seconds, then it is cancelled.

        Called from within the handler or `on_gap` it does not wait for that.
        """
        self.shut()
        under_way = {self._runner, self._gaps.quiet()} - {None, asyncio.current_task()}
        running = {task for task in under_way if task is not None}
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace)
        for task in late:
            task.cancel()
        if late:
            _, stuck = await asyncio.wait(late, timeout=_LAST_WAIT)
            for task in stuck:
                log.error("%s ignores its cancellation", task.get_name())


def _event(message: Broadcast) -> Event:
    published = message.published_at
    return Event(
        channel=message.channel,
        id=message.id,
        origin=message.origin,
        seq=message.seq,
        published_at=None if published is None else utc(published),
        id_is_stable=message.id_is_stable,
    )
