"""Getting a lock: few contenders of an instance at the server, the others in line behind them."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cluster_kit.errors import LockTimeout, LockUnavailable, NotStartedError
from cluster_kit.locks.asking import Asking, again
from cluster_kit.locks.line import Lines
from cluster_kit.locks.possession import Possession
from cluster_kit.locks.terms import answer_timeout
from cluster_kit.loops import OwnLoop
from cluster_kit.names import new_id
from cluster_kit.ports import Claim

if TYPE_CHECKING:
    from cluster_kit.locks.context import LockContext
    from cluster_kit.locks.line import Line
    from cluster_kit.locks.terms import Terms
    from cluster_kit.ports import Grant

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_MOST_OWNER_BYTES = 200
_UNWIND_SECONDS = 1.0
_RELEASE_SECONDS = 2.0
_LOOK_SECONDS = 0.01
_MOST_PLACES = 16
"""Of an instance in a backend's line, for each key: each place costs renewals their time there."""


class Try:
    """One acquisition, from the call to a possession or an error.

    Attributes:
        begun: reading of the clock at the call.
        until: likewise, when its time is over.
        held: somebody else was seen to have the lock.
        error: what the server answered last instead of yes or no.
        one_of_many: it is given up as soon as another one is granted.
    """

    def __init__(self, key: str, claim: Claim, terms: Terms, *, begun: float) -> None:
        self.key = key
        self.claim = claim
        self.terms = terms
        self.begun = begun
        self.until = begun + (terms.timeout or math.inf)
        self.one_of_many = False
        self.held = False
        self.error: LockUnavailable | None = None

    def follow(self, line: Line) -> None:
        """What those before it in line were answered goes for it until it hears something else."""
        if line.answered:
            self.held, self.error = line.error is None, line.error

    def in_vain(self, waited: float) -> LockTimeout | LockUnavailable:
        """Return why it ended without the lock."""
        if self.held:
            return LockTimeout(self.key, waited)
        if self.error is not None:
            return again(self.key, self.error)
        return LockUnavailable(self.key, f"no answer within {waited:.3g} s")


class Contention:
    """All acquisitions and all locks of one instance, from its start to its stop.

    Args:
        around: what everything about locks shares.
        owner: of all claims, for people.

    Attributes:
        held: the locks it has, by key.
        home: the event loop of all calls.
    """

    def __init__(self, around: LockContext, *, owner: str) -> None:
        self.around = around
        self.held: dict[str, Possession] = {}
        self.home = OwnLoop("locks")
        self._owner = f"{owner} pid {os.getpid()}"
        # Where the backend itself keeps the order, some stand in its line, the others behind them.
        self._fair = around.adapter.capabilities.fair
        self._lines = Lines(_MOST_PLACES if self._fair else 1)
        self._waiting: set[asyncio.Timeout] = set()
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many acquisitions are under way."""
        return len(self._waiting)

    def attempt(self, key: str, terms: Terms) -> Try:
        """Return an acquisition by the task that calls, for `acquire`."""
        begun = self.around.clock.monotonic()
        return Try(key, self._claim(key, terms.ttl), terms, begun=begun)

    async def acquire(self, attempt: Try) -> Possession:
        """Wait for the lock and return it, begun.

        Raises:
            LockTimeout: somebody else held it all the time.
            LockUnavailable: the server gave no usable answer.
            NotStartedError: the instance stopped meanwhile.
        """
        timeout = attempt.terms.timeout
        try:
            async with self.within(timeout):
                possession = await self._in_turn(attempt)
        except TimeoutError as exc:
            error = exc if isinstance(exc, LockTimeout) else attempt.in_vain(timeout)
            self._refused(attempt, error)
            raise error from None
        except LockUnavailable as exc:
            self._refused(attempt, exc)
            raise
        waited = self.around.clock.monotonic() - attempt.begun
        self.around.report("lock.acquired", key=attempt.key, fence=possession.fence, seconds=waited)
        return possession

    @asynccontextmanager
    async def within(self, timeout: float) -> AsyncGenerator[None]:
        """Bound a wait by time, 0 for no bound, and by the end of the instance.

        Raises:
            TimeoutError: the time is over.
            NotStartedError: the instance stops.
        """
        scope = asyncio.timeout(timeout or None)
        self._enter(scope)
        try:
            async with scope:
                yield
        except TimeoutError as exc:
            if self._closing and scope.expired():
                raise NotStartedError("locks") from exc
            raise
        finally:
            self._waiting.discard(scope)

    def _enter(self, scope: asyncio.Timeout) -> None:
        if self._closing:  # whoever asks again and again began before
            raise NotStartedError("locks")
        self._waiting.add(scope)

    async def close(self, grace: float) -> None:
        """End what waits and the bodies of what is held, and give back what nobody is inside of.

        A body that has not ended after `grace` seconds keeps its lock until the ttl is over.
        """
        self._closing = True
        loop = asyncio.get_running_loop()
        for scope in tuple(self._waiting):
            if not scope.expired():
                scope.reschedule(loop.time())
        begun = loop.time()
        inside: set[Possession] = set()
        while True:  # bodies end in tasks of users; what was just granted comes late
            inside.update(await self._lose_all())
            inside = {possession for possession in inside if possession.bound}
            waited = loop.time() - begun
            late = bool(self._waiting or self.held) and waited < _UNWIND_SECONDS
            if not late and (not inside or waited >= grace):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        if inside:
            keys = ", ".join(sorted(repr(possession.key) for possession in inside))
            log.error("not given back, as what they protect still runs: locks %s", keys)
            for possession in inside:
                possession.abandon()
        if self.around.releasing:
            await asyncio.wait(set(self.around.releasing), timeout=_RELEASE_SECONDS)

    async def _lose_all(self) -> list[Possession]:
        """End all that is held now; give back what protects no body, and return the rest."""
        held = list(self.held.values())
        for possession in held:  # that one nobody is inside of is given back is no trouble
            level = logging.WARNING if possession.bound else logging.INFO
            possession.lose("the cluster stops", level=level)
        for possession in held:
            if not possession.bound:
                await possession.give_back()
        return [possession for possession in held if possession.bound]

    def _claim(self, key: str, ttl: float) -> Claim:
        task = asyncio.current_task()
        owner = _short(f"{self._owner} {task.get_name() if task else ''}")
        return Claim(name=self.around.name_of(key), token=new_id(), owner=owner, ttl=ttl)

    def _refused(self, attempt: Try, error: Exception) -> None:
        waited, why = self.around.clock.monotonic() - attempt.begun, type(error).__name__
        self.around.report("lock.refused", key=attempt.key, seconds=waited, error=why)

    async def _in_turn(self, attempt: Try) -> Possession:
        line = self._lines.find(attempt.claim.name)
        if attempt.terms.timeout == 0 and line.full:
            attempt.follow(line)
            # Where nothing was answered yet, who is before it has the lock or is about to.
            raise attempt.in_vain(0.0) if line.answered else LockTimeout(attempt.key, 0.0)
        try:
            await line.enter()
        except BaseException:
            attempt.follow(line)
            self._lines.tidy(attempt.claim.name, line)
            raise
        try:
            return await self._contend(attempt, line)
        except BaseException:
            self._lines.leave(attempt.claim.name, line)
            raise

    async def _contend(self, attempt: Try, line: Line) -> Possession:
        attempt.follow(line)
        asking, pause = self._asking(attempt, line), _FIRST_PAUSE
        kept = False
        try:
            while (possession := await self._ask(attempt, asking, line)) is None:
                if attempt.terms.timeout == 0:
                    raise attempt.in_vain(0.0)
                if attempt.error is None:
                    asking = self._own(attempt, asking)
                    await asking.contender.changed()
                elif not attempt.error.retryable:
                    raise again(attempt.key, attempt.error)
                else:
                    await asyncio.sleep(pause * self.around.random.uniform(0.8, 1.2))
                    pause = min(2 * pause, _LONGEST_PAUSE)
            kept = True
            return possession
        finally:
            if asking.under_way and not self._fair:
                line.left = asking
            else:  # a place in the line of a server is nobody's to inherit
                asking.end(kept=kept)

    def _asking(self, attempt: Try, line: Line) -> Asking:
        """Return what who was first before has asked for and not heard, or something new."""
        left, line.left = line.left, None
        if left is not None:
            if left.claim.ttl == attempt.claim.ttl:
                return left
            left.end()
        return Asking(self.around, attempt.claim)

    def _own(self, attempt: Try, asking: Asking) -> Asking:
        """Ask in his own name from now on."""
        if asking.claim is attempt.claim:
            return asking
        asking.end()
        return Asking(self.around, attempt.claim)

    async def _ask(self, attempt: Try, asking: Asking, line: Line) -> Possession | None:
        """Ask the server once. None when it is not ours; `attempt` knows why."""
        time_left = attempt.until - self.around.clock.monotonic()
        lasts = line.last and not attempt.one_of_many
        patient = lasts and time_left > answer_timeout(asking.claim.ttl)
        answer = await asking.answer(patient=patient)
        attempt.error = None
        if isinstance(answer, LockUnavailable):
            attempt.error = self.around.told(attempt.key, answer)
        attempt.held = answer is None
        line.heard(attempt.error)
        if answer is None or isinstance(answer, LockUnavailable):
            return None
        possession = self._take(attempt, asking, answer, line)
        if possession is None:
            own = asking.claim is attempt.claim
            await asking.give_back()
            if own:
                attempt.claim = asking.claim
        return possession

    def _take(self, attempt: Try, asking: Asking, grant: Grant, line: Line) -> Possession | None:
        name = attempt.claim.name

        def on_end(ended: Possession) -> None:
            self._lines.leave(name, line)
            if self.held.get(attempt.key) is ended:
                del self.held[attempt.key]

        possession = Possession(
            attempt.key,
            asking.claim,
            grant,
            asked_at=asking.asked_at,
            terms=attempt.terms,
            around=self.around,
            unsure=asking.unsure,
            on_end=on_end,
        )
        if possession.too_late:
            held = attempt.terms.max_hold
            over = "ttl" if held is None or held > asking.claim.ttl else "max_hold"
            attempt.error = LockUnavailable(
                attempt.key, f"the answer came when its {over} was over"
            )
            return None
        self.held[attempt.key] = possession
        possession.begin()
        return possession


def _short(owner: str) -> str:
    if owner.isascii() and owner.isprintable():
        return owner[:_MOST_OWNER_BYTES]
    printable = "".join(c if c.isprintable() else "?" for c in owner)
    return printable.encode(errors="replace")[:_MOST_OWNER_BYTES].decode(errors="ignore")
