"""Takes one delivery from its checks to its settlement."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.event_queue.attempts import Attempts
from cluster_kit.event_queue.outcome import Again, Dead, GiveBack, Judge, Outcome
from cluster_kit.event_queue.run import Run, crashes
from cluster_kit.message import DeadReason

if TYPE_CHECKING:
    from cluster_kit.event_queue.surroundings import Options, Surroundings
    from cluster_kit.handler import Handler

_NOT_BEGUN = GiveBack("it was not begun")


class Worker:
    """Runs tasks of one channel: checks, has the handler called, settles the outcome."""

    def __init__(
        self, channel: str, handler: Handler, judge: Judge, options: Options, shared: Surroundings
    ) -> None:
        self._judge = judge
        self._crash_limit = options.crash_limit
        self._shared = shared
        self._attempts = Attempts(channel, handler, judge, options, shared)

    async def work(self, run: Run) -> bool:
        """Take `run` to its end. Errors of the handler become outcomes, not exceptions.

        False when it was not begun and is to go back as it came.
        """
        shared = self._shared
        try:
            try:
                outcome = await self._outcome(run)
            finally:
                run.end()
                shared.quarantine.leave(run)
            if run.renewal is not None:
                await asyncio.wait({run.renewal})
            if outcome is _NOT_BEGUN:
                return False
            shared.ledger.settling(run)
            if run.early is not None:
                await asyncio.wait({run.early})
            if not run.settled_early:
                await shared.settler.settle(run, outcome)
        finally:
            shared.ledger.end(run)
        return True

    async def _outcome(self, run: Run) -> Outcome:
        if (dead := self._refusal(run)) is not None:
            return dead
        if run.held:  # before it is decoded, which may be what kills
            begins, run.held = await self._shared.quarantine.admit(run), False
            if not begins:
                return _NOT_BEGUN
        payload, refused = self._attempts.prepare(run)
        if refused is not None:
            return refused
        outcome = await self._attempts.attempt(run, payload)
        if isinstance(outcome, Again) and outcome.in_place:
            return await self._attempts.in_place(run, outcome)
        return outcome

    def _refusal(self, run: Run) -> Dead | None:
        """Return the end of a task that most likely kills its workers, or comes too late."""
        unexplained = crashes(run.received)
        if unexplained <= self._crash_limit:
            return self._attempts.expiry(run)
        text = f"delivered {unexplained + 1} times without an outcome"
        return self._judge.dead(run.envelope, DeadReason.CRASHED, text=text)
