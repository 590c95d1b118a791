"""What ties a worker process to the process that supervises it: a socket pair.

The worker says through it when it is ready and how long its stop may take. The kernel says
through it that the supervising process is gone, however it went.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from dataclasses import asdict, dataclass
from typing import Self

STOP_MARGIN = 10.0
"""Seconds a process may take beyond its drain: hooks, connections, the interpreter's end."""

UNKNOWN_STOP = 60.0
"""Seconds a worker may take to stop while it has not said how long."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says about itself.

    Attributes:
        ready: it is started.
        stop_seconds: how long its stop may take.
        refusal: why it cannot be run at all, as it stands.
    """

    ready: bool = False
    stop_seconds: float = UNKNOWN_STOP
    refusal: str = ""

    def line(self) -> bytes:
        """Return it as it travels."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Return what `line` has made of a report."""
        return cls(**json.loads(line))


class Lifeline:
    """The worker's end."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._stop_seconds = UNKNOWN_STOP

    def watch(self) -> None:
        """Stop this process when the supervising one is gone. In a thread of its own.

        A thread, because the event loop may be blocked by a handler at that very moment.
        """
        threading.Thread(target=self._wait, name="lifeline", daemon=True).start()

    def loaded(self, stop_seconds: float) -> None:
        """Say how long a stop may take."""
        self._stop_seconds = stop_seconds
        self._send(Report(stop_seconds=stop_seconds))

    def ready(self) -> None:
        """Say that the application is started."""
        self._send(Report(ready=True, stop_seconds=self._stop_seconds))

    def refused(self, why: str) -> None:
        """Say why every start would fail, as the others find out too."""
        self._send(Report(refusal=why))

    def _send(self, report: Report) -> None:
        try:
            self._socket.sendall(report.line())
        except OSError:
            return  # the other side is gone, which `watch` deals with

    def _wait(self) -> None:
        try:
            while self._socket.recv(64):
                pass
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(self._stop_seconds + STOP_MARGIN)
        os._exit(1)
