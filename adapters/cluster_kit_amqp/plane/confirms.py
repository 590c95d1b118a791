"""Publishes that wait for the broker's word."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from cluster_kit_amqp.link import LinkError, Nacked, Returned
from cluster_kit_amqp.plane.frames import MalformedError
from cluster_kit_amqp.plane.methods import Return


class Pending(NamedTuple):
    """A publish without an answer yet."""

    future: asyncio.Future[None]
    size: int
    message_id: str | None
    exchange: str
    key: str


class Confirms:
    """The publishes in flight on one channel, by their number.

    The first publish after confirm.select has number 1, the next 2, and so on; the broker names
    them in any order, or several at once, "all up to" a number (RabbitMQ's own).

    Args:
        settled: called with messages and bytes that are not in flight any more.

    Attributes:
        add: notes one that is being sent.
    """

    def __init__(self, settled: Callable[[int, int], None]) -> None:
        self._tell_settled = settled
        self._pending: deque[Pending | None] = deque()
        self.add: Callable[[Pending], None] = self._pending.append
        self._first = 1
        self._returned: dict[int, str] = {}

    def settle(self, number: int, *, multiple: bool, taken: bool) -> None:
        """The broker has answered one, or all up to it.

        Raises:
            MalformedError: it has not been published.
        """
        last = self._first + len(self._pending) - 1
        if number > last:
            raise MalformedError(f"the broker confirmed message {number} of {last}")
        if multiple:
            # Number 0 stands for all there are (basic.ack).
            self._settle_all_up_to(number or last, taken=taken)
        elif number == self._first:
            self._settle_first(taken=taken)
            self._drop_settled()
        elif number > self._first:
            index = number - self._first
            pending, self._pending[index] = self._pending[index], None
            self._answer(number, pending, taken=taken)

    def _settle_all_up_to(self, number: int, *, taken: bool) -> None:
        if taken and not self._returned:
            self._take_all_up_to(number)
        while self._first <= number:
            self._settle_first(taken=taken)
        self._drop_settled()

    def _take_all_up_to(self, number: int) -> None:
        """What is usual, in one go: the broker took them, and returned none."""
        messages = size = 0
        for _ in range(self._first, number + 1):
            pending = self._pending.popleft()
            if pending is None:
                continue
            messages += 1
            size += pending.size
            if not pending.future.done():  # else its caller has given up
                pending.future.set_result(None)
        self._first = max(self._first, number + 1)
        self._tell_settled(messages, size)

    def _settle_first(self, *, taken: bool) -> None:
        pending = self._pending.popleft()
        number = self._first
        self._first += 1
        self._answer(number, pending, taken=taken)

    def _drop_settled(self) -> None:
        pending = self._pending
        while pending and pending[0] is None:
            pending.popleft()
            self._first += 1

    def _answer(self, number: int, pending: Pending | None, *, taken: bool) -> None:
        if pending is None:
            return
        self._tell_settled(1, pending.size)
        future = pending.future
        reason = self._returned.pop(number, None) if self._returned else None
        if future.done():  # its caller has given up
            return
        if not taken:
            future.set_exception(
                Nacked("its queue did not take it: it is full, or has no leader for now")
            )
        elif reason is not None:
            future.set_exception(Returned(reason))
        else:
            future.set_result(None)

    def returned(self, told: Return, message_id: str | None) -> None:
        """No queue took a message; its confirm follows.

        The broker returns messages in the order they were published in, each before it confirms
        it. So it is the first of that identity that has not been returned yet.
        """
        sought = (message_id or None, told.exchange, told.key)
        for number, pending in enumerate(self._pending, self._first):
            if pending is None or number in self._returned:
                continue
            if (pending.message_id or None, pending.exchange, pending.key) == sought:
                self._returned[number] = told.reason
                return

    def fail_all(self, make_error: Callable[[], LinkError]) -> None:
        """No answer will come any more."""
        pending = [one for one in self._pending if one is not None]
        self._pending.clear()
        self._returned.clear()
        self._tell_settled(len(pending), sum(one.size for one in pending))
        for one in pending:
            if not one.future.done():
                one.future.set_exception(make_error())
