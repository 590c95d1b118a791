"""Requests for a lock that outlive who waits for their answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster_kit.errors import LockUnavailable
from cluster_kit.locks.terms import answer_timeout
from cluster_kit.names import new_id

if TYPE_CHECKING:
    from cluster_kit.locks.context import LockContext
    from cluster_kit.ports import Claim, Grant


class Asking:
    """One claim, asked for until it is granted or nobody wants it.

    Who waits may go at any time. The request he leaves is for the next in line, or is read and
    undone in the background: none is broken off, which would cost its connection, but that of a
    patient one; see `answer`.

    Attributes:
        claim: what is asked for.
        contender: by which.
        asked_at: reading of the clock before the last request.
        under_way: nobody has heard the answer to that.
        unsure: the server may have granted what nobody here knows of.
    """

    def __init__(self, around: LockContext, claim: Claim) -> None:
        self.claim = claim
        self.contender = around.adapter.contend(claim)
        self.asked_at = 0.0
        self.unsure = False
        self.under_way: bool = False
        self._around = around
        # Nothing is under way to a server within this process: a task would only take time. And to
        # who stands in the line of a server, it would cost the place of his coming.
        promises = around.adapter.capabilities
        self._at_once = promises.scope == "process" or promises.fair
        self._said: Grant | Exception | None = None
        self._heard: asyncio.Future[None] | None = None  # for who waits; None once it was said

    async def answer(self, *, patient: bool = False) -> Grant | LockUnavailable | None:
        """Return what the server says to the request under way, or to a new one.

        Whoever is cancelled here leaves it under way. One who is `patient`, as he has the time
        and nobody stands behind him, asks without a task of its own for that, which is quicker:
        a cancellation breaks such a request off.
        """
        if not self.under_way:
            self.asked_at = self._around.clock.monotonic()
            if patient or self._at_once:
                await self._ask()
                return self._read()
        loop = asyncio.get_running_loop()
        heard = loop.create_future()
        if not self.under_way:
            self.under_way, self._heard = True, heard
            name = f"ask for {self.claim.name}"
            self._around.supervisor.launch(Asking._ask, self, name=name, loop=loop)
        if self._heard is not None:
            self._heard = heard
            await heard
        self.under_way = False
        return self._read()

    def _read(self) -> Grant | LockUnavailable | None:
        said = self._said
        if isinstance(said, Exception) and not isinstance(said, LockUnavailable):
            raise said
        return said

    async def _ask(self) -> None:
        try:
            self._said = await self.contender.attempt(timeout=answer_timeout(self.claim.ttl))
        except Exception as exc:  # noqa: BLE001 - raised to who waits
            self._said = exc
        except BaseException:
            self._said = LockUnavailable(self.claim.name, "the cluster stops")
            raise
        finally:
            heard, self._heard = self._heard, None
            if heard is not None and not heard.done():
                heard.set_result(None)
            failed = isinstance(self._said, Exception) and self.contender.asked
            self.unsure = self.unsure or failed or self.contender.unsure

    async def give_back(self) -> None:
        """Free what was granted too late: others may have it before it is asked for again.

        Then by another token: a release whose answer nobody heard may come late, and must not find
        what was granted since.
        """
        given, unsure = self.claim, True
        try:
            with suppress(LockUnavailable):
                timeout = answer_timeout(given.ttl)
                await self._around.adapter.release(given, timeout=timeout)
                unsure = self.unsure
        finally:
            if unsure:
                self._around.free_later(given, unsure=True)
            self.contender.leave()
            self.claim, self.unsure = replace(given, token=new_id()), False
            self.contender = self._around.adapter.contend(self.claim)

    def end(self, *, kept: bool = False) -> None:
        """Ask no more. Unless it is `kept`, what was granted or may be is freed."""
        if self.under_way:
            self._around.later(self._undo(), self.claim)
            return
        self.contender.leave()
        if self.unsure and not kept:
            self._around.free_later(self.claim, unsure=True)

    async def _undo(self) -> None:
        answer: Grant | LockUnavailable | None = None
        try:
            answer = await self.answer()
        finally:
            self.contender.leave()
            if self.unsure or answer is not None:
                await self._around.free(self.claim, unsure=self.unsure)


def again(key: str, error: LockUnavailable) -> LockUnavailable:
    """Return an error that says the same: one object for several tasks would gather tracebacks."""
    return LockUnavailable(key, error.reason, retryable=error.retryable)
