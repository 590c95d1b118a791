"""What is to be received, who waits for it to begin, and what must be told then."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit.errors import TopologyError


class Debt(NamedTuple):
    """A gap to be told: seconds since 1970, and why."""

    since: float
    reason: str


class Wishes:
    """The bindings of one source.

    Attributes:
        wanted: what is to be received.
        live: what is being received, or was up to the last loss.
    """

    def __init__(self) -> None:
        self.wanted: set[Binding] = set()
        self.live: set[Binding] = set()
        self._owed: dict[Binding, Debt] = {}
        self._asking: dict[Binding, asyncio.Future[None]] = {}

    def remove(self, binding: Binding) -> None:
        """It is wanted no more, and nothing is to be told of it."""
        self.wanted.discard(binding)
        self.live.discard(binding)
        self._owed.pop(binding, None)
        asked = self._asking.pop(binding, None)
        if asked is not None:
            asked.set_result(None)

    # --- who waits ---------------------------------------------------------------------------

    def ask(self, binding: Binding) -> asyncio.Future[None]:
        """Return what is done when the binding is live, or will be after a gap."""
        asked = self._asking.get(binding)
        if asked is None:
            asked = self._asking[binding] = asyncio.get_running_loop().create_future()
        return asked

    def stop_asking(self, binding: Binding) -> None:
        """Nobody waits for it any more."""
        self._asking.pop(binding, None)

    def refuse(self, refused: Iterable[tuple[Binding, TopologyError]]) -> None:
        """Whoever waits for one of these is told; nobody wants it then."""
        for binding, error in refused:
            asked = self._asking.pop(binding, None)
            if asked is not None:
                self.remove(binding)
                asked.set_exception(error)

    def refuse_all(self, error: TopologyError) -> None:
        """As `refuse`, for all somebody waits for."""
        self.refuse([(binding, error) for binding in self._asking])

    def put_off(self, debt: Debt) -> None:
        """Nobody waits any longer: what is not live by now will be, after a gap."""
        asking, self._asking = self._asking, {}
        for binding, asked in asking.items():
            if binding in self.wanted:
                self.owe([binding], debt)
            asked.set_result(None)

    # --- gaps --------------------------------------------------------------------------------

    def owe(self, bindings: Iterable[Binding], debt: Debt) -> None:
        """Remember a gap; an earlier one of the same binding stays."""
        for binding in bindings:
            self._owed.setdefault(binding, debt)

    def settle(self, bound: set[Binding]) -> dict[Debt, Collection[Binding]]:
        """These are live; answer those who wait, and return the gaps that are to be told."""
        self.live = bound & self.wanted
        told: dict[Debt, list[Binding]] = {}
        for binding in self.live:
            debt = self._owed.pop(binding, None)
            if debt is not None:
                told.setdefault(debt, []).append(binding)
            asked = self._asking.pop(binding, None)
            if asked is not None:
                asked.set_result(None)
        return dict(told)
