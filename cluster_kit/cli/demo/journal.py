"""What the instances report: the evidence of the demo."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from cluster_kit.clock import SystemClock

if TYPE_CHECKING:
    from cluster_kit.message import Delivery

Life = Literal["started", "stopped", "cut", "mended", "stumbled"]
OfTask = Literal["run", "done", "failed", "cancelled", "fixed"]
OfMessage = Literal["heard", "gap"]
OfCache = Literal["loading", "read", "deleted"]
OfLock = Literal["entered", "left", "lost"]
Kind = Life | OfTask | OfMessage | OfCache | OfLock

Order = Callable[[Mapping[str, Any]], Coroutine[Any, Any, None]]
"""What an instance does when it is told to, with what is said about it."""


class BrokenPromise(Exception):  # noqa: N818 - what it is, and nothing the library raises
    """Something else happened than promised; the text says what."""


def require(kept: bool, otherwise: str) -> None:
    """Raise `BrokenPromise` with `otherwise` unless `kept`."""
    if not kept:
        raise BrokenPromise(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one instance saw. `at` is in seconds since 1970, all on one machine.

    Attributes:
        channel: of a task or a message; the key of a value or of a lock.
        id: of a task, or of the order that this came of.
        number: of a message; the fence of a lock.
        detail: of ``failed`` the error, of ``cancelled`` the signal's reason, of ``stopped`` the
            ids of unfinished tasks, of ``heard`` the text, of ``read`` the values, of ``stumbled``
            the error that ended an order.
    """

    kind: Kind
    instance: str
    at: float
    channel: str = ""
    id: str = ""
    attempt: int = 0
    redelivered: bool = False
    number: int = 0
    detail: str = ""

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> Self:
        """Return what `line` has made of an event."""
        return cls(**json.loads(line))


class Reporter:
    """Notes what one instance sees, with the time.

    Args:
        instance: its name.
        report: takes the events.
    """

    def __init__(self, instance: str, report: Callable[[Event], None]) -> None:
        self._instance = instance
        self._report = report
        self._clock = SystemClock()

    def note(
        self, kind: Kind, channel: str = "", id_: str = "", *, number: int = 0, detail: str = ""
    ) -> None:
        """Report what concerns no task."""
        at, name = self._clock.wall(), self._instance
        self._report(
            Event(
                kind=kind,
                instance=name,
                at=at,
                channel=channel,
                id=id_,
                number=number,
                detail=detail,
            )
        )

    def see(self, kind: OfTask, delivery: Delivery, detail: str = "") -> None:
        """Report what concerns a task."""
        self._report(
            Event(
                kind=kind,
                instance=self._instance,
                at=self._clock.wall(),
                channel=delivery.channel,
                id=delivery.id,
                attempt=delivery.attempt,
                redelivered=delivery.redelivered,
                detail=detail,
            )
        )


class Journal:
    """All events of all instances, in the order they came in.

    Attributes:
        patience: seconds anything may take before a promise counts as broken.
    """

    patience: float = 30.0

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()
        self._stumbles: list[Event] = []

    def add(self, event: Event) -> None:
        """Note an event."""
        self.events.append(event)
        if event.kind == "stumbled":
            self._stumbles.append(event)
        self._news.set()

    def of(self, kind: Kind, ids: Iterable[str]) -> list[Event]:
        """Return the events of one kind that concern these tasks, or came of these orders."""
        wanted = set(ids)
        return [event for event in self.events if event.kind == kind and event.id in wanted]

    def on(self, kind: Kind, channel: str, instance: str | None = None) -> list[Event]:
        """Return the events of one kind on a channel: of all instances, or of one."""
        return [
            event
            for event in self.events
            if event.kind == kind
            and event.channel == channel
            and instance in (None, event.instance)
        ]

    def instances(self, kind: Kind) -> list[str]:
        """Return the instances that reported an event of this kind."""
        return [event.instance for event in self.events if event.kind == kind]

    async def until(self, reached: Callable[[], bool], otherwise: str) -> None:
        """Wait until `reached`.

        Raises:
            BrokenPromise: with `otherwise`, when that takes longer than `patience`; or an order
                ended in an error.
        """
        try:
            async with asyncio.timeout(self.patience):
                while not reached():
                    for event in self._stumbles:
                        self._stumbles = []
                        raise BrokenPromise(f"{event.instance}: {event.detail}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise BrokenPromise(f"{otherwise} within {self.patience:g} s") from None

    async def until_done(self, ids: list[str]) -> list[Event]:
        """Wait until every task is done and return these events. Raises as `until`."""
        await self.until(
            lambda: {event.id for event in self.of("done", ids)} == set(ids),
            f"not all of {len(ids)} tasks were done",
        )
        return self.of("done", ids)
