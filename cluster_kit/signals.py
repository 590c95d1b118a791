"""Waiting for the signals that ask a process to end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

ENDING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a process to end."""


@contextmanager
def ending_signals(on_first: Callable[[], None]) -> Generator[asyncio.Event, None, None]:
    """Give an event that the first SIGTERM or SIGINT sets; a second ends the process at once.

    `on_first` is called by the first one too.
    Within the context only, and on the main thread. The second one must not depend on Python: a
    KeyboardInterrupt would wait for ever on a handler that ignores its cancellation.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    before = {number: signal.getsignal(number) for number in ENDING}

    def ask() -> None:
        if asked.is_set():  # both came while the event loop was busy, and this is the second
            os.kill(os.getpid(), signal.SIGTERM)
        asked.set()
        on_first()
        for number in ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in ENDING:
        loop.add_signal_handler(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
