"""What the commands below ``dead-letters`` do."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import typer

from cluster_kit.cli.output import Column, one_line_json, print_json, print_table, visible
from cluster_kit.cli.reporting import FAILED, WRONG_USE, fail, say
from cluster_kit.cli.session import Access
from cluster_kit.errors import ClusterKitError

if TYPE_CHECKING:
    from datetime import datetime

    from cluster_kit.cluster import Cluster
    from cluster_kit.event_queue import DeadLetters
    from cluster_kit.message import DeadLetter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Box:
    """The dead letters of a channel, before anything is connected."""

    channel: str
    access: Access

    @classmethod
    def of(cls, channel: str, url: str | None, app: str | None, *, shared: bool) -> Self:
        """Return the box a command line names."""
        return cls(channel, Access(url, app, shared=shared))

    def open(self, work: Callable[[DeadLetters], Awaitable[T]]) -> T:
        """Connect, await `work` and return its result.

        Raises:
            ClusterKitError: there is no such queue; and as `Cluster.start`.
        """

        async def within(cluster: Cluster) -> T:
            queue, shared = cluster.event_queue, self.access.shared
            if await queue.depth(self.channel, shared=shared) is None:
                raise ClusterKitError(f"{cluster.name} has no queue for channel {self.channel!r}")
            return await work(queue.dead_letters(self.channel, shared=shared))

        return self.access.run(within)


def list_letters(box: Box, *, limit: int, as_json: bool) -> None:
    """Print the oldest letters."""
    letters = box.open(lambda dead: dead.browse(limit))
    if as_json:
        print_json([as_dict(letter) for letter in letters])
        return
    columns = (
        Column("id", fold=True),
        Column("reason"),
        Column("attempts", "right"),
        Column("died (UTC)", fold=True),
        Column("error", fold=True),
    )
    rows = [(x.id, x.reason, x.attempts, _minute(x.died_at), _error(x)) for x in letters]
    print_table(columns, rows)


def show_letter(box: Box, message_id: str, *, as_json: bool) -> None:
    """Print all there is to know about one letter."""
    found = box.open(lambda dead: _find(dead, message_id))
    if found is None:
        fail(f"no dead letter {message_id!r} in {box.channel!r}")
    if as_json:
        print_json(as_dict(found))
        return
    for name, value in as_dict(found).items():
        if name != "payload" and value is not None:
            text = value if isinstance(value, str) else one_line_json(value)
            typer.echo(f"{name + ':':14}{visible(text)}")


def replay_letters(box: Box, ids: list[str] | None, *, rate: float | None, as_json: bool) -> None:
    """Publish letters again and print how many; exit 1 when some were not found."""
    count = box.open(lambda dead: dead.replay(ids, rate=rate))
    _report("replayed", count, ids, as_json=as_json)


def discard_letters(box: Box, ids: list[str] | None, *, yes: bool, as_json: bool) -> None:
    """Drop letters and print how many; exit 1 when some were not found."""
    if not yes:
        _confirm(box, ids)
    count = box.open(lambda dead: dead.discard(ids))
    _report("discarded", count, ids, as_json=as_json)


def export_letters(box: Box) -> None:
    """Print every letter as a line of JSON."""
    box.open(_print_all)


def as_dict(letter: DeadLetter) -> dict[str, Any]:
    """Return a letter's JSON form, in which nothing is lost.

    The bytes as published are in `body` where they are UTF-8, else in `body_base64`; `payload` is
    what they decode to, or null. Times are ISO 8601.
    """
    try:
        text, encoded = letter.body.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(letter.body).decode()
    return {
        "id": letter.id,
        "channel": letter.channel,
        "reason": letter.reason.value,
        "error_type": letter.error_type,
        "error_text": letter.error_text,
        "attempts": letter.attempts,
        "published_at": _iso(letter.published_at),
        "died_at": _iso(letter.died_at),
        "instance_id": letter.instance_id,
        "headers": dict(letter.headers),
        "payload": letter.payload,
        "body": text,
        "body_base64": encoded,
    }


async def _find(dead: DeadLetters, message_id: str) -> DeadLetter | None:
    async with aclosing(aiter(dead)) as letters:
        async for letter in letters:
            if letter.id == message_id:
                return letter
    return None


async def _print_all(dead: DeadLetters) -> None:
    async for letter in dead:
        # In a thread: a pager that nobody scrolls must not end the connection.
        await asyncio.to_thread(typer.echo, one_line_json(as_dict(letter)))


def _confirm(box: Box, ids: list[str] | None) -> None:
    some = "" if ids is None else f"{len(ids)} dead letter{'s' if len(ids) > 1 else ''}"
    which = some or "all dead letters"
    if not _is_person():
        fail(f"this would discard {which} of {box.channel!r}; confirm with --yes", WRONG_USE)
    if not typer.confirm(f"Discard {which} of {box.channel!r} for good?", err=True):
        fail("nothing was discarded")


def _is_person() -> bool:
    return sys.stdin.isatty()


def _report(done: str, count: int, ids: list[str] | None, *, as_json: bool) -> None:
    if as_json:
        print_json({done: count})
    else:
        typer.echo(f"{done} {count}")
    wanted = len(set(ids or ()))
    if count < wanted:
        say(f"{wanted - count} of {wanted} ids are not among the dead letters")
        raise typer.Exit(FAILED)


def _error(letter: DeadLetter) -> str:
    return ": ".join(part for part in (letter.error_type, letter.error_text) if part)


def _minute(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
