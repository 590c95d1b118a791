"""A store as an application may write it: one dict, which all its instances share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster_kit.ports import Health, StoreCapabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Rows = dict[str, tuple[bytes, float]]


class DictStore:
    capabilities = StoreCapabilities(backend="dict", scope="process")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    def health(self) -> Health:
        return Health(status="ok", detail="a dict", since=0.0)

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:
        return [self._get(key) for key in keys]

    async def write(
        self,
        items: Mapping[str, bytes],
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> list[bytes | None]:
        for key, body in items.items():
            self._put(key, body, ttl)
        return await self.read(then_read, timeout=timeout)

    async def swap(
        self,
        key: str,
        body: bytes | None,
        *,
        expected: bytes | None,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> tuple[bool, list[bytes | None]]:
        present = self._get(key)
        if expected is None or present is None:
            fits = expected is None and present is None
        else:
            fits = present.startswith(expected)
        if fits:
            self._put(key, body, ttl)
        return fits, await self.read(then_read, timeout=timeout)

    async def renew(
        self,
        keys: Sequence[str],
        make: Callable[[], bytes],
        *,
        present: bool,
        ttl: float | None,
        timeout: float,
    ) -> list[bytes | None]:
        for key in keys:
            if (self._get(key) is not None) == present:
                self._put(key, make(), ttl)
        return await self.read(keys, timeout=timeout)

    async def remove(
        self,
        keys: Sequence[str],
        *,
        once: bool = False,
        timeout: float,
    ) -> list[bytes | None]:
        found = await self.read(keys, timeout=timeout)
        for key in keys:
            self._put(key, None, None)
        return found

    async def increment(
        self,
        key: str,
        amount: int,
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> tuple[int, list[bytes | None]]:
        present = self._get(key)
        if present is not None and present.isdigit():
            amount += int(present)
            self._rows[key] = b"%d" % amount, self._rows[key][1]
        else:
            self._put(key, b"%d" % amount, ttl)
        return amount, await self.read(then_read, timeout=timeout)

    async def keys(self, prefix: str, *, timeout: float) -> list[str]:
        found = [key for key in self._rows if key.startswith(prefix)]
        return [key for key in found if self._get(key) is not None]

    def _get(self, key: str) -> bytes | None:
        body, until = self._rows.get(key, (None, 0.0))
        return body if time.monotonic() < until else None

    def _put(self, key: str, body: bytes | None, ttl: float | None) -> None:
        if body is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = body, time.monotonic() + (float("inf") if ttl is None else ttl)
