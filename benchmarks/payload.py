"""What is sent: 288 bytes of JSON that carry a number and the time of sending."""

from __future__ import annotations

import json
import re
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


def encode(number: int) -> bytes:
    """Return payload `number` as JSON."""
    return json.dumps(make(number), separators=(",", ":")).encode()


ENCODED = re.compile(rb'"order":(\d+),"sent":(\d+),')
"""Finds `encode`d payloads in whatever surrounds them."""


def found(match: re.Match[bytes]) -> dict[str, Any]:
    """Return what `number_of` and `age` want to know of an `ENCODED` one."""
    return {"order": int(match[1]), "sent": int(match[2])}
