"""What is sent: 288 bytes of JSON that carry a number and the time of sending."""

from __future__ import annotations

import time
from typing import Any

_FIRST_ORDER = 1_000_000
_FIRST_TIME = 10**18
"""Both are there so that the text of a number is always equally long."""

_LINES = [{"sku": f"sku-{number:04}", "count": number} for number in range(1, 6)]
_NOTE = "x" * 59


def make(number: int) -> dict[str, Any]:
    """Return payload `number`, sent now."""
    return {
        "order": _FIRST_ORDER + number,
        "sent": _FIRST_TIME + time.monotonic_ns(),
        "customer": "c-0001",
        "lines": _LINES,
        "note": _NOTE,
    }


def number_of(payload: dict[str, Any]) -> int:
    """Return the number that a payload was made with."""
    number: int = payload["order"] - _FIRST_ORDER
    return number


def age(payload: dict[str, Any]) -> float:
    """Return the seconds since a payload was made, by whichever process of this machine."""
    nanoseconds: int = time.monotonic_ns() - (payload["sent"] - _FIRST_TIME)
    return nanoseconds / 1e9
