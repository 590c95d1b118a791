"""Tells a subscription that it may have missed messages."""

from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from cluster_kit.signature import is_async
from cluster_kit.supervisor import being_cancelled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_kit.pubsub.context import OnGap, PubSubContext

log = logging.getLogger(__name__)

SETTLE = 0.1
"""Seconds in which further channels join the first, so that one call tells of them all."""

PATIENCE = 1.0
"""Seconds the call waits for a running handler; after them it runs beside it."""


@dataclass(slots=True)
class Told:
    """A gap that explains holes: those in what was sent before it was told of, at `at`."""

    at: float = inf


class GapTeller:
    """Calls one subscription's `on_gap`, between two messages where that is soon possible.

    Attributes:
        on_gap: of the subscription; None has only the log to tell it.
    """

    def __init__(
        self, name: str, on_gap: OnGap | None, turn: asyncio.Lock, around: PubSubContext
    ) -> None:
        self.on_gap = on_gap
        self._name = name
        self._turn = turn
        self._around = around
        self._channels: dict[str, str] = {}  # with the reason
        self._told: list[Told] = []
        self._calling = False
        self._held = True
        self._task: asyncio.Task[None] | None = None

    def note(self, channels: Iterable[str], reason: str, told: Told | None = None) -> None:
        """Tell of these channels, soon and once; `told` gets the time at which the call begins."""
        self._channels.update(dict.fromkeys(channels, reason))
        if told is not None:
            self._told.append(told)
        if self.on_gap is None:
            self._warn()
        else:
            self._wake()

    def release(self) -> None:
        """Begin to call `on_gap`."""
        self._held = False
        self._wake()

    def _warn(self) -> None:
        """Have the log tell of it, where nobody else does."""
        self._begin()
        told, self._channels = self._channels, {}
        for reason in dict.fromkeys(told.values()):
            names = ", ".join(name for name in told if told[name] == reason)
            text = "messages on %s may be missing: %s; subscribe with on_gap to hear of it"
            log.warning(text, names, reason)

    def _begin(self) -> None:
        """Note when what was noted so far is told: what is loaded anew has all that went before."""
        now = self._around.clock.monotonic()
        for told in self._told:
            told.at = min(told.at, now)
        self._told.clear()

    def _wake(self) -> None:
        if self._channels and self._task is None and not self._held:
            name = f"{self._around.kind}:{self._name}:gap"
            self._task = self._around.supervisor.spawn(self._tell(), name=name)

    def quiet(self) -> asyncio.Task[None] | None:
        """Begin no call any more; return the task of one under way."""
        self._channels.clear()
        if self._task is not None and not self._calling:
            self._task.cancel()
        return self._task

    async def _tell(self) -> None:
        try:
            while self._channels:
                await self._around.clock.sleep(SETTLE)
                held = await self._take_turn()
                try:
                    await self._call()
                finally:
                    if held:
                        self._turn.release()
        finally:
            self._task = None
            if self._channels:  # on_gap ended its own task: the rest is told in another one
                asyncio.get_running_loop().call_soon(self._wake)

    async def _take_turn(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._turn.acquire()
        except TimeoutError:
            return False

    async def _call(self) -> None:
        if self.on_gap is None:  # it was taken back meanwhile
            self._warn()
            return
        channels, self._channels = list(self._channels), {}
        if not channels:
            return
        self._calling = True
        self._begin()
        try:
            await self._run(self.on_gap, channels)
        except KeyboardInterrupt:
            raise
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            log.exception("on_gap of %s failed on %s", self._name, ", ".join(channels))
        except (Exception, SystemExit):  # sys.exit() ends the call only
            log.exception("on_gap of %s failed on %s", self._name, ", ".join(channels))
        finally:
            self._calling = False

    async def _run(self, on_gap: OnGap, channels: list[str]) -> None:
        call = partial(on_gap, channels)
        result = (
            call()
            if is_async(on_gap)
            else await self._around.supervisor.run_in_thread(call, name=f"{self._name}:gap")
        )
        if inspect.isawaitable(result):
            await result
