"""Who is at the other end of a link."""

from __future__ import annotations

from typing import NamedTuple


class Server(NamedTuple):
    """What the broker says of itself; `heartbeat` is what was agreed on, seconds, 0 for none."""

    product: str
    version: str
    heartbeat: int = 0

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version; (0, 0) when unreadable.

        >>> Server(product="RabbitMQ", version="4.3.0-rc.1").release
        (4, 3)
        """
        major, _, rest = self.version.partition(".")
        minor = rest.partition(".")[0]
        digits = major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()
        return (int(major), int(minor)) if digits else (0, 0)
