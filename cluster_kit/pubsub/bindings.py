"""Keeps what an adapter receives equal to what is subscribed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit.ports import PubSubAdapter


class Bindings:
    """The bindings of one realm on one adapter.

    Args:
        adapter: connected.
        wanted: returns what is to be received now.
    """

    def __init__(self, adapter: PubSubAdapter, wanted: Callable[[], Iterable[Binding]]) -> None:
        self._adapter = adapter
        self._wanted = wanted
        self._bound: set[Binding] = set()
        self._turn = asyncio.Lock()

    async def adjust(self) -> None:
        """Bind what is missing and unbind what nobody asks for any more.

        Raises:
            TopologyError: as `PubSubAdapter.bind`.
        """
        async with self._turn:
            wanted = set(self._wanted())
            for binding in sorted(wanted - self._bound, key=str):
                await self._adapter.bind(binding)
                self._bound.add(binding)
            await self._unbind(self._bound - wanted)

    async def retract(self) -> None:
        """Unbind what nobody asks for any more."""
        async with self._turn:
            await self._unbind(self._bound - set(self._wanted()))

    async def _unbind(self, bindings: set[Binding]) -> None:
        for binding in sorted(bindings, key=str):
            await self._adapter.unbind(binding)
            self._bound.discard(binding)
