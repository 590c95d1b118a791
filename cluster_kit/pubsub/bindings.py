"""Keeps what an adapter receives equal to what is subscribed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from cluster_kit.errors import TopologyError

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

    async def adjust(self, own: Collection[Binding]) -> None:
        """Bind what is missing and unbind what nobody asks for any more.

        Raises:
            TopologyError: one of `own` is refused. Of another one, who asked for it is told.
        """
        refused: dict[Binding, TopologyError] = {}
        async with self._turn:
            wanted = set(self._wanted())
            for binding in sorted(wanted - self._bound, key=str):
                try:
                    await self._adapter.bind(binding)
                except TopologyError as exc:
                    refused[binding] = exc
                else:
                    self._bound.add(binding)
            await self._unbind(self._bound - wanted)
        for binding, error in refused.items():
            if binding in own:
                raise error

    async def retract(self) -> None:
        """Unbind what nobody asks for any more."""
        async with self._turn:
            await self._unbind(self._bound - set(self._wanted()))

    async def _unbind(self, bindings: set[Binding]) -> None:
        for binding in sorted(bindings, key=str):
            await self._adapter.unbind(binding)
            self._bound.discard(binding)
