"""Waiting for the signals that ask a process to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from cluster_kit.clock import SystemClock

ENDING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a process to end."""

SAME_STOP = 0.5
"""Seconds in which all signals are of one stop: GNU timeout, for one, signals a process and then
its group."""

STDERR = 2
"""Descriptor of standard error."""

HOW_TO_HURRY = "a second signal ends this process at once, and what it runs is delivered again"
"""What the first signal is answered with."""

log = logging.getLogger(__name__)

_Handler = Callable[[int, FrameType | None], object] | int | None


@contextmanager
def ending_signals(on_first: Callable[[], None]) -> Generator[asyncio.Event, None, None]:
    """Give an event that the first SIGTERM or SIGINT sets; a second ends the process at once.

    One that comes within `SAME_STOP` seconds of the first is no second. `on_first` is called by the
    first one too. It is logged how to end the process at once; a second SIGINT, which comes from a
    person, says what that means.
    Within the context only, and on the main thread. What handled them before does so again after
    it; but a handler of ``loop.add_signal_handler``, or one set in C, is gone, and the default is
    in its place. A second one must not end by an exception: a KeyboardInterrupt would wait for ever
    on a handler that ignores its cancellation. A second SIGTERM does not depend on Python at all.
    """
    before = {number: _taken(number) for number in ENDING}
    ending = _Ending(on_first)
    try:
        ending.listen()
        yield ending.asked
    finally:
        ending.close()
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _taken(number: signal.Signals) -> _Handler:
    """Return what handles a signal, to be put back; None for what cannot be: of the loop, of C."""
    loop = asyncio.get_running_loop()
    return None if loop.remove_signal_handler(number) else signal.getsignal(number)


class _Ending:
    """Receives signals, and tells those of one stop from a second one."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.asked = asyncio.Event()
        self._on_first = on_first
        self._loop = asyncio.get_running_loop()
        self._clock = SystemClock()
        self._first: float | None = None
        self._wake: dict[int, object] = {}  # handlers of the event loop, which then calls `_ask`
        self._later: asyncio.TimerHandle | None = None

    def listen(self) -> None:
        for number in ENDING:
            self._loop.add_signal_handler(number, self._ask, number)
            self._wake[number] = signal.signal(number, self._receive)
            signal.siginterrupt(number, False)  # noqa: FBT003 - as the loop had set it

    def close(self) -> None:
        if self._later is not None:
            self._later.cancel()
        for number in ENDING:
            self._loop.remove_signal_handler(number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # Not in the event loop: when that is busy, it cannot tell when a signal came.
        now = self._clock.monotonic()
        if self._first is None:
            self._first = now
        elif now - self._first > SAME_STOP:
            _end_at_once(number)
        if callable(wake := self._wake[number]):
            wake(number, frame)

    def _ask(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            return
        self.asked.set()
        log.info("stopping on %s; %s", number.name, HOW_TO_HURRY)
        self._on_first()
        self._later = self._loop.call_later(
            SAME_STOP, signal.signal, signal.SIGTERM, signal.SIG_DFL
        )


def _end_at_once(number: int) -> None:
    # Past every buffer and lock: whoever holds one may be what is stuck.
    os.write(STDERR, b"cluster-kit: second signal: ended at once, without a drain\n")
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
