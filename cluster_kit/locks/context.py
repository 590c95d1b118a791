"""What everything about locks of one instance shares while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster_kit.errors import LockUnavailable
from cluster_kit.locks.terms import answer_timeout

if TYPE_CHECKING:
    import random

    from cluster_kit.clock import Clock
    from cluster_kit.ports import Claim, Emit, LockAdapter
    from cluster_kit.supervisor import Supervisor

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_SECOND_LOOK = 0.3
"""Seconds. A request that was given up may reach the server after the release that follows it."""

_LAST_LOOK = 60.0
"""Seconds after which it does not any more."""


class LockContext(NamedTuple):
    """Made at start.

    Attributes:
        app: name of the application, which comes before all names.
        adapter: connected.
        supervisor: starts what outlives a call.
        clock: by which locks are valid; counts the time the machine was suspended.
        random: for jitter.
        report: counts and tells telemetry.
        releasing: releases under way that nobody waits for.
        source: what the URL of the server comes from, for errors; may be empty.
    """

    app: str
    adapter: LockAdapter
    supervisor: Supervisor
    clock: Clock
    random: random.Random
    report: Emit
    releasing: set[asyncio.Task[Any]]
    source: str

    def name_of(self, key: str) -> str:
        """Return what the server knows a key as."""
        return f"{self.app}.{key}"

    def told(self, key: str, error: LockUnavailable) -> LockUnavailable:
        """Return what the adapter raised as the caller gets it.

        Where waiting does not help it says which setting is to be looked at.
        """
        reason = error.reason
        if not error.retryable and self.source and not reason.startswith(self.source):
            reason = f"{self.source}: {reason}"
        return LockUnavailable(key, reason, retryable=error.retryable)

    def free_later(self, claim: Claim, *, unsure: bool) -> None:
        """Release a token in the background; `unsure`: its grant may still be on the way."""
        self.later(self.free(claim, unsure=unsure), claim)

    def later(self, work: Coroutine[Any, Any, None], claim: Claim) -> None:
        """Do in the background what ends with the release of a token."""
        task = self.supervisor.spawn(work, name=f"release {claim.name}")
        self.releasing.add(task)
        task.add_done_callback(self.releasing.discard)

    async def free(self, claim: Claim, *, unsure: bool) -> None:
        """Release a token, again and again for its ttl; `unsure` as in `free_later`."""
        end = self.clock.monotonic() + claim.ttl
        pause = _FIRST_PAUSE
        while self.clock.monotonic() < end:
            try:
                await self.adapter.release(claim, timeout=answer_timeout(claim.ttl))
            except LockUnavailable as exc:
                if not exc.retryable:
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if not unsure:
                return
            unsure = False
            self.supervisor.spawn(self._look_again(claim), name=f"look for {claim.name}")
            await asyncio.sleep(_SECOND_LOOK)

    async def _look_again(self, claim: Claim) -> None:
        """Release a lock that was granted late, when it was about as long again."""
        look, end = 2 * _SECOND_LOOK, self.clock.monotonic() + _LAST_LOOK
        while self.clock.monotonic() < end:
            await asyncio.sleep(look)
            look *= 2
            with suppress(LockUnavailable):
                await self.adapter.release(claim, timeout=answer_timeout(claim.ttl))
