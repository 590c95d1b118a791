"""What talks to a server, shared by everything one instance uses there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from cluster_kit.ports import AdapterContext

Options = TypeVar("Options", bound="Hashable")
Backend = TypeVar("Backend")


@dataclass(slots=True, eq=False)
class _Lent(Generic[Backend]):
    backend: Backend
    users: int = 0


class Shared(Generic[Options, Backend]):
    """Makes a backend for its first user of an instance, and closes it after the last.

    Args:
        make: from options and context; it connects when it is used.
        close: ends its connections.
    """

    def __init__(
        self,
        make: Callable[[Options, AdapterContext], Backend],
        close: Callable[[Backend], Awaitable[object]],
    ) -> None:
        self._make = make
        self._close = close
        self._lent: dict[Hashable, _Lent[Backend]] = {}

    def borrow(self, options: Options, context: AdapterContext) -> Backend:
        """Return the backend of a server, with one more user in this instance."""
        key = _key(options, context)
        lent = self._lent.get(key)
        if lent is None:
            lent = self._lent[key] = _Lent(self._make(options, context))
        lent.users += 1
        return lent.backend

    async def give_back(self, options: Options, context: AdapterContext) -> None:
        """Have one user less."""
        key = _key(options, context)
        lent = self._lent[key]
        lent.users -= 1
        if not lent.users:
            del self._lent[key]
            await self._close(lent.backend)


def _key(options: Hashable, context: AdapterContext) -> Hashable:
    return asyncio.get_running_loop(), context.app, context.instance_id, options
