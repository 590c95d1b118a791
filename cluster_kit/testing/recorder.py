"""A handler that keeps what it was given and answers as it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.testing.waiting import PATIENCE
from cluster_kit.testing.watch import Watch

if TYPE_CHECKING:
    from cluster_kit.message import Delivery

Answer = Callable[[object, "Delivery"], Awaitable[object]]
"""What a recorder does with a task, after it has noted it."""


@dataclass(slots=True, eq=False)
class Run:
    """One run of the recorder's handler. `error` is what it ended with, None for success."""

    payload: object
    delivery: Delivery
    ended: bool = False
    error: BaseException | None = None


class Recorder(Watch):
    """Subscribe its `handle`; several instances may share one.

    Attributes:
        runs: every run, in the order they began.

    Args:
        answer: awaited in each run; by default a run succeeds at once.
    """

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self._answer = answer

    async def handle(self, payload: object, delivery: Delivery) -> None:
        """Note the run, then answer."""
        run = Run(payload, delivery)
        self.runs.append(run)
        with self._call():
            try:
                if self._answer is not None:
                    await self._answer(payload, delivery)
            except BaseException as exc:
                run.error = exc
                raise
            finally:
                run.ended = True

    @property
    def payloads(self) -> list[object]:
        """Payloads of all runs, in the order they began."""
        return [run.payload for run in self.runs]

    @property
    def ids(self) -> list[str]:
        """Message ids of all runs, in the order they began."""
        return [run.delivery.id for run in self.runs]

    async def started(self, runs: int = 1, *, timeout: float = PATIENCE) -> list[Run]:
        """Wait until at least so many runs have begun, and return all.

        Raises:
            AssertionError: they did not within `timeout` seconds.
        """
        await self._until(lambda: len(self.runs) >= runs, f"{runs} runs to begin", timeout)
        return self.runs

    async def finished(self, runs: int = 1, *, timeout: float = PATIENCE) -> list[Run]:
        """Wait until at least so many runs have ended, well or not, and return all. Raises too."""
        await self._until(
            lambda: sum(run.ended for run in self.runs) >= runs, f"{runs} runs to end", timeout
        )
        return self.runs

    def _seen(self) -> str:
        seen = "; ".join(
            f"{run.delivery.id} #{run.delivery.attempt} {run.payload!r:.60}"
            f"{'' if run.ended else ' (running)'}{f' {run.error!r}' if run.error else ''}"
            for run in self.runs
        )
        return seen or "no run"


def answers(*errors: BaseException | None) -> Answer:
    """Return an answer that ends run after run as listed (None: well), and then always well."""
    left = list(errors)

    async def answer(_payload: object, _delivery: Delivery) -> None:
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    return answer


def always(error: BaseException) -> Answer:
    """Return an answer that fails every run with `error`."""

    async def answer(_payload: object, _delivery: Delivery) -> None:
        raise error

    return answer


def until(gate: asyncio.Event) -> Answer:
    """Return an answer that holds every run until `gate` is set."""

    async def answer(_payload: object, _delivery: Delivery) -> None:
        await gate.wait()

    return answer
