"""A lock as this instance has it: renewed, watched, given back once."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster_kit.errors import LockLost, LockUnavailable
from cluster_kit.locks.states import LeaseState
from cluster_kit.locks.terms import answer_timeout
from cluster_kit.loops import OwnLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.locks.bond import Tie
    from cluster_kit.locks.context import LockContext
    from cluster_kit.locks.terms import Terms
    from cluster_kit.ports import Claim, Grant

log = logging.getLogger(__name__)

_RENEWED_AFTER = (0.85 / 3, 1 / 3)  # of its time; thousands taken together drift apart
_FIRST_PAUSE = 0.05  # seconds between two attempts to renew
_LEAST_TTL, _LONGEST_GRACE = 0.01, 1.0  # seconds
_LONGEST_LOOK = 1.0  # seconds; timers of the loop do not count the time of a suspended machine
_FINE_CLOCK, _COARSE_CLOCK = 0.85, 0.3
"""What is sure of a ttl from when it was asked for, by the server's clock: a little less than what
a confirmed one is worth. One of whole seconds may be two late, and lets 3 seconds go after one."""


class Possession:
    """A granted lock. Several leases of one task may share it.

    Everything it says is read from the clock: whoever asks after the loop was blocked hears the
    truth before any timer had a chance to run. It ends a little before the server frees the lock,
    so that what it protects is over when somebody else may enter.

    Any thread may ask; only on its own event loop it changes. A forked process has nothing of it.

    Args:
        asked_at: reading of the clock before the request.
        unsure: another request of this claim may still reach the server.
        on_end: called once, when it is lost or given back: the next one here may try.
    """

    def __init__(  # noqa: PLR0913 - what makes a possession
        self,
        key: str,
        claim: Claim,
        grant: Grant,
        *,
        asked_at: float,
        terms: Terms,
        around: LockContext,
        unsure: bool,
        on_end: Callable[[Possession], None],
    ) -> None:
        self.app = around.app
        self.key = key
        self.claim = claim
        self.fence = grant.fence
        self.lost = asyncio.Event()
        self.handles = 1
        self.reason = ""
        self.acquirer = asyncio.current_task()
        self.home = OwnLoop(f"lock {key!r}")
        self._around = around
        self._unsure = unsure
        self._on_end = on_end
        self._state = LeaseState.HELD
        self._gone_at_server = self._given_back = False
        self._told_elsewhere = False  # a thread was told that it is lost
        # Where a lock dies with a connection, one that ends with its ttl must be heard of too.
        self._leash = around.adapter.capabilities.leash
        self._ends_with_ttl = not terms.renew
        self._renews = terms.renew or self._leash < math.inf
        self._since = asked_at
        self._most = math.inf if terms.max_hold is None else asked_at + terms.max_hold
        self._ttl_ends = asked_at + claim.ttl
        self._bonds: list[Tie] = []
        self._renewing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._gone = grant.gone
        self._set_end(asked_at, grant.valid_for)

    def begin(self) -> None:
        """Start to renew and to watch. To be called in the step that hands it out."""
        if self._gone is not None:
            self._gone.add_done_callback(self._taken_away)
        self._set_timer()

    # --- what it is ----------------------------------------------------------------------

    def read(self) -> LeaseState:
        """Return the state by the clock. Any thread may ask, and a forked process."""
        if self.home.forked:
            return LeaseState.LOST
        if not self.live or self._around.clock.monotonic() < self._ends:
            return self._state
        if self.home.is_here:
            self.lose(self._why())
        elif not self._told_elsewhere:
            self._told_elsewhere = True
            with suppress(RuntimeError):  # its event loop is closed, and with it every body
                self.home.call_soon(self.lose, self._why())
        return LeaseState.LOST

    def _why(self) -> str:
        if self.home.forked:
            return "a forked process has none of the locks of the one it comes from"
        over = "held as long as max_hold allows" if self._ends >= self._most else "its time is over"
        return self.reason or over

    @property
    def live(self) -> bool:
        """Whether it is held as far as known, without a look at the clock."""
        state = self._state
        return state is LeaseState.HELD or state is LeaseState.SUSPECT

    @property
    def too_late(self) -> bool:
        """Whether it was over before anybody could use it."""
        return self._ends <= self._around.clock.monotonic()

    def seconds_left(self) -> float:
        """Return for how long it is certainly ours, 0 when it is not."""
        if self.read() is LeaseState.LOST or not self.live:
            return 0.0
        return max(self._ends - self._around.clock.monotonic(), 0.0)

    def check(self) -> None:
        """Raise `LockLost` unless it is ours."""
        state = self.read()
        if state is LeaseState.LOST:
            raise LockLost(self.key, f"lost: {self._why()}")
        if state is LeaseState.RELEASED:
            raise LockLost(self.key, "it was given back")

    def belongs_to(self, task: asyncio.Task[object] | None) -> bool:
        """Whether `task` would wait for itself if it waited for this lock."""
        if task is None or not self.seconds_left():
            return False
        if self._bonds:
            return any(bond.task is task for bond in self._bonds)
        return self.acquirer is task

    # --- who is tied to it ---------------------------------------------------------------

    @property
    def bound(self) -> bool:
        """Whether a body is tied to it."""
        return bool(self._bonds)

    def bind(self, bond: Tie) -> None:
        """Tie a body to it."""
        self._bonds.append(bond)

    def unbind(self, bond: Tie) -> bool:
        """Untie a body; True when it was cancelled because of this lock alone."""
        self._bonds.remove(bond)
        return bond.undo()

    # --- its end -------------------------------------------------------------------------

    def _taken_away(self, gone: asyncio.Future[str]) -> None:
        if not gone.cancelled():
            self.lose(gone.result(), gone=True)

    def lose(self, reason: str, *, gone: bool = False, level: int = logging.WARNING) -> None:
        """It is lost, and `gone` when the server said so: end what it protects."""
        if not self.live:
            return
        self._state, self.reason, self._gone_at_server = LeaseState.LOST, reason, gone
        self._stop()
        self.lost.set()
        log.log(level, "lock %r (fence %d) is lost: %s", self.key, self.fence, reason)
        self._around.report("lock.lost", key=self.key, fence=self.fence, reason=reason)
        for bond in tuple(self._bonds):
            bond.cut()
        self._on_end(self)

    async def give_back(self) -> None:
        """Free it for others. Never fails: what cannot be told now is told in the background."""
        if self._given_back:
            return
        self._given_back, freed = True, self._gone_at_server
        try:
            if self.read() is not LeaseState.LOST:
                await self._release()
                freed = True
        except LockUnavailable as exc:
            log.warning("lock %r is freed in the background: %s", self.key, exc.reason)
        finally:
            if self._unsure or not freed:
                self._around.free_later(self.claim, unsure=self._unsure)

    async def _release(self) -> None:
        self._state = LeaseState.RELEASED
        self._stop()
        seconds = self._around.clock.monotonic() - self._since
        try:
            await self._around.adapter.release(self.claim, timeout=answer_timeout(self.claim.ttl))
        finally:
            self._around.report("lock.released", key=self.key, fence=self.fence, seconds=seconds)
            self._on_end(self)

    def abandon(self) -> None:
        """Never free it: somebody is inside, and its ttl ends it."""
        self._given_back = True

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._keeper is not None and self._keeper is not asyncio.current_task():
            self._keeper.cancel()

    # --- its life ------------------------------------------------------------------------

    async def extend(self, ttl: float) -> None:
        """As `Lease.extend`, with a ttl that the backend can keep."""
        self.check()
        await self._renew(ttl)
        self.check()

    def _set_end(self, asked_at: float, valid_for: float) -> None:
        grace = min(self.claim.ttl / 10, self._leash / 10, _LONGEST_GRACE)
        self._ends = min(asked_at + valid_for - grace, self._most)
        pause = valid_for * self._around.random.uniform(*_RENEWED_AFTER)
        self._renew_at = asked_at + pause if self._renews else math.inf

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = min(self._ends, self._renew_at) - self._around.clock.monotonic()
        pause = min(max(left, 0.0), _LONGEST_LOOK)
        self._timer = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self.read()
        if not self.live:
            return
        if self._around.clock.monotonic() >= self._renew_at:
            self._renew_at = math.inf
            name = f"renew {self.claim.name}"
            self._keeper = self._around.supervisor.spawn(self._keep(), name=name)
        self._set_timer()

    async def _keep(self) -> None:
        """Renew it once: again and again while that fails and it is still held."""
        pause = _FIRST_PAUSE
        while self.read() is not LeaseState.LOST and self.live:
            try:
                await self._renew()
            except LockUnavailable as exc:
                self._doubt(exc)
                await asyncio.sleep(pause * self._around.random.uniform(0.8, 1.2))
                pause = min(2 * pause, max(self.claim.ttl / 10, _FIRST_PAUSE))
            else:
                return

    def _ttl(self) -> float:
        """Return for how long it is to live on: anew, or as long as it was to in the beginning."""
        if not self._ends_with_ttl:
            return self.claim.ttl
        return max(self._ttl_ends - self._around.clock.monotonic(), _LEAST_TTL)

    async def _renew(self, wanted: float | None = None) -> None:
        """Renew it, by the `wanted` ttl from now on where one is given."""
        async with self._renewing:  # two at once could leave the shorter ttl at the server
            asked_at = self._around.clock.monotonic()
            if wanted is not None:
                self.claim = replace(self.claim, turn=self.claim.turn + 1)
            claim = replace(self.claim, ttl=self._ttl() if wanted is None else wanted)
            left = max(self._ends - asked_at, 0.01)
            timeout = min(answer_timeout(min(self.claim.ttl, claim.ttl)), left)
            self._assume(claim, asked_at)
            try:
                valid_for = await self._around.adapter.renew(claim, timeout=timeout)
            except BaseException as exc:
                self._assume(claim, asked_at, unanswered=True)
                if isinstance(exc, LockUnavailable):
                    raise self._around.told(self.key, exc) from exc
                raise
            self.read()
            if valid_for is None:
                self.lose("the server does not know it as ours any more", gone=True)
            elif self.live:
                self._state = LeaseState.HELD
                self._ttl_ends = asked_at + claim.ttl
                self.claim = claim if wanted is not None else self.claim
                self._set_end(asked_at, valid_for)
                self._set_timer()

    def _assume(self, claim: Claim, asked_at: float, *, unanswered: bool = False) -> None:
        """The server may have set a shorter ttl: it counts from when it is asked for.

        Where the holder's own instance keeps the ttl, there is nothing to doubt.
        """
        if self.live and claim.ttl < self.claim.ttl and math.isinf(self._leash):
            coarse = self._around.adapter.capabilities.ttl_grain >= 1
            sure = claim.ttl * (_COARSE_CLOCK if coarse else _FINE_CLOCK)
            self._ends = min(self._ends, asked_at + sure)
            if unanswered:
                self.claim, self._renew_at = claim, asked_at if self._renews else math.inf
            self._set_timer()

    def _doubt(self, error: LockUnavailable) -> None:
        if self._state is LeaseState.HELD:
            self._state = LeaseState.SUSPECT
            log.warning("lock %r (fence %d) may get lost: %s", self.key, self.fence, error.reason)
            self._around.report("lock.suspect", key=self.key, fence=self.fence, error=error.reason)
