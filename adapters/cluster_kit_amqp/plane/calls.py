"""Calls on a channel that wait for their answer, and calls of those who want to hear."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TypeVarTuple

from cluster_kit_amqp.link import LinkError
from cluster_kit_amqp.plane.frames import MalformedError
from cluster_kit_amqp.plane.methods import BASIC_CANCEL_OK, BASIC_CONSUME_OK, name

Ts = TypeVarTuple("Ts")

_OF_CONSUMERS = {BASIC_CONSUME_OK, BASIC_CANCEL_OK}

log = logging.getLogger(__name__)


def tell(callback: Callable[[*Ts], object], *arguments: *Ts) -> None:
    """Call back; one that raises keeps nobody else from hearing."""
    try:
        callback(*arguments)
    except Exception:
        log.exception("a callback of a link failed")


class Calls:
    """The calls under way on one channel; the peer answers them in their order (2.2.2.1)."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, asyncio.Future[bytes]]] = deque()
        self._last: dict[int, bytes] = {}  # answers that name a consumer

    def expect(self, answer: int) -> asyncio.Future[bytes]:
        """Note that the answer with this index will come; return what will hold its arguments."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, future))
        return future

    def answered(self, index: int, arguments: bytes) -> None:
        """An answer has come.

        RabbitMQ 3.10 gives that of a consumer whose queue is deleted just then twice.

        Raises:
            MalformedError: to no call of ours.
        """
        if index in _OF_CONSUMERS:
            if self._last.get(index) == arguments:
                log.debug("method %s came twice", name(index))
                return
            self._last[index] = arguments
        if not self._waiting or self._waiting[0][0] != index:
            raise MalformedError(f"method {name(index)} came out of place")
        _, future = self._waiting.popleft()
        if not future.done():
            future.set_result(arguments)

    def fail_all(self, make_error: Callable[[], LinkError]) -> None:
        """No answer will come any more."""
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(make_error())
                future.exception()  # of calls sent together, who waits hears of the first
