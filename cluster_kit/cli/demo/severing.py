"""Cutting the connections of this process, from within and for real."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

DESCRIPTORS = Path("/dev/fd")
"""Where Linux and macOS list the open files of this process."""

AGAIN = 0.005
"""Seconds after which connections that were made meanwhile are cut, too."""


def sever() -> int:
    """Shut down every connection this process has, both ways; return how many there were.

    The server sees their end as it sees that of a process that dies, and so does whoever reads
    here. Sockets stay open, for they are their owners' to close.
    """
    return sum(_shut_down(int(path.name)) for path in DESCRIPTORS.iterdir())


async def keep_severed() -> None:
    """Shut down every connection, also new ones, until cancelled."""
    while True:
        sever()
        await asyncio.sleep(AGAIN)


def _shut_down(descriptor: int) -> bool:
    with suppress(OSError):  # no socket, or not connected
        found = socket.socket(fileno=descriptor)
        try:
            if found.family in (socket.AF_INET, socket.AF_INET6):
                found.shutdown(socket.SHUT_RDWR)
                return True
        finally:
            found.detach()
    return False
