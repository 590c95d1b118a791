"""Waiting for the signals that ask a process to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a process to end."""

STDERR = 2
"""Descriptor of standard error."""

HOW_TO_HURRY = "a second signal ends this process at once, and what it runs is delivered again"
"""What the first signal is answered with."""

log = logging.getLogger(__name__)

_Handler = Callable[[int, FrameType | None], object] | int | None


@contextmanager
def ending_signals(on_first: Callable[[], None]) -> Generator[asyncio.Event, None, None]:
    """Give an event that the first SIGTERM or SIGINT sets; a second ends the process at once.

    `on_first` is called by the first one too. It is logged how to end the process at once; a
    second SIGINT, which comes from a person, says what that means.
    Within the context only, and on the main thread. What handled them before does so again after
    it; but a handler of ``loop.add_signal_handler``, or one set in C, is gone, and the default is
    in its place. A second one must not end by an exception: a
    KeyboardInterrupt would wait for ever on a handler that ignores its cancellation. A second
    SIGTERM does not depend on Python at all.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    before = {number: _taken(loop, number) for number in ENDING}

    def ask(number: signal.Signals) -> None:
        if asked.is_set():  # both came while the event loop was busy, and this is the second
            _end_at_once(number, None)
        asked.set()
        log.info("stopping on %s; %s", number.name, HOW_TO_HURRY)
        on_first()
        for other in ENDING:
            loop.remove_signal_handler(other)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, _end_at_once)

    for number in ENDING:
        loop.add_signal_handler(number, ask, number)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)


def _taken(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> _Handler:
    """Return what handles a signal, to be put back; None for what cannot be: of the loop, of C."""
    return None if loop.remove_signal_handler(number) else signal.getsignal(number)


def _end_at_once(number: int, _frame: object) -> None:
    # Past every buffer and lock: whoever holds one may be what is stuck.
    os.write(STDERR, b"cluster-kit: second signal: ended at once, without a drain\n")
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
