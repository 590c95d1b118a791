"""x"""

from __future__ import annotations


def show(*, instances: int, url: str | None, as_json: bool) -> None: ...
