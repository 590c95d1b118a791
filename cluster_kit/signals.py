"""Waiting for the signals that ask a process to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster_kit.clock import SystemClock

if TYPE_CHECKING:
    from types import FrameType

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


@contextmanager
def ending_signals(on_first: Callable[[], None]) -> Generator[asyncio.Event, None, None]:
    """Give an event that the first SIGTERM or SIGINT sets; a second ends the process at once.

    One that comes within `SAME_STOP` seconds of the first is no second. `on_first` is called by the
    first one too. It is logged how to end the process at once; a second SIGINT, which comes from a
    person, says what that means.
    Within the context only, and on the main thread. A second one must not end by an exception: a
    KeyboardInterrupt would wait for ever on a handler that ignores its cancellation. A second
    SIGTERM does not depend on Python at all.
    """
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    asked = asyncio.Event()
    before = {number: signal.getsignal(number) for number in ENDING}
    of_loop: dict[int, object] = {}
    came: list[float] = []
    later: list[asyncio.TimerHandle] = []

    def receive(number: int, frame: FrameType | None) -> None:
        # At once, though the event loop be busy: it could not tell when a signal came.
        came.append(clock.monotonic())
        if came[-1] - came[0] > SAME_STOP:
            _end_at_once(number, frame)
        if callable(wake := of_loop[number]):
            wake(number, frame)

    def ask(number: signal.Signals) -> None:
        if asked.is_set():
            return
        asked.set()
        log.info("stopping on %s; %s", number.name, HOW_TO_HURRY)
        on_first()
        later.append(loop.call_later(SAME_STOP, signal.signal, signal.SIGTERM, signal.SIG_DFL))

    for number in ENDING:
        loop.add_signal_handler(number, ask, number)
        of_loop[number] = signal.signal(number, receive)
        signal.siginterrupt(number, False)
    try:
        yield asked
    finally:
        for timer in later:
            timer.cancel()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _end_at_once(number: int, _frame: object) -> None:
    # Past every buffer and lock: whoever holds one may be what is stuck.
    os.write(STDERR, b"cluster-kit: second signal: ended at once, without a drain\n")
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
