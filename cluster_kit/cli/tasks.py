"""The commands ``publish`` and ``queues``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from cluster_kit.cli.output import Column, print_json, print_table
from cluster_kit.cli.reporting import WRONG_USE, fail
from cluster_kit.codec import JsonCodec
from cluster_kit.errors import ClusterKitError, DecodeError, MessageError
from cluster_kit.settings import Settings
from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_kit.cli.session import Access
    from cluster_kit.cluster import Cluster
    from cluster_kit.ports import QueueDepth

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be published. Durations are seconds."""

    channel: str
    payload: object
    delay: float | None
    ttl: float | None
    timeout: float | None
    max_retries: int | None
    message_id: str | None
    headers: Mapping[str, str]
    shared: bool


def read_payload(text: str) -> object:
    """Return the value of a JSON text, or of standard input for ``-``.

    Raises:
        Exit: it is not JSON; the line printed says where.
    """
    piped = text == STANDARD_INPUT
    body = sys.stdin.buffer.read() if piped else text.encode(errors="surrogateescape")
    try:
        return JsonCodec().decode(body)
    except DecodeError as exc:
        where = "standard input" if piped else "PAYLOAD_JSON"
        fail(f"{where} is not JSON: {exc.__cause__}", WRONG_USE)


def read_headers(items: list[str]) -> dict[str, str]:
    """Return ``KEY=VALUE`` items as a dict.

    Raises:
        Exit: an item without ``=`` or key, a key that comes twice, or headers that cannot travel.
    """
    from cluster_kit.event_queue.publishing import check_headers

    headers: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not equals:
            fail(f"--header {item!r} is not KEY=VALUE", WRONG_USE)
        if key in headers:
            fail(f"--header {key!r} is given twice", WRONG_USE)
        headers[key] = value
    try:
        check_headers(headers)
    except MessageError as exc:
        fail(f"--header: {exc}", WRONG_USE)
    return headers


def publish_task(access: Access, task: Task, *, as_json: bool) -> None:
    """Publish and print the id."""

    async def work(cluster: Cluster) -> str:
        return await cluster.event_queue.publish(
            task.channel,
            task.payload,
            delay=task.delay,
            ttl=task.ttl,
            timeout=task.timeout,
            max_retries=task.max_retries,
            message_id=task.message_id,
            headers=task.headers,
            shared=task.shared,
        )

    message_id = access.run(work)
    if as_json:
        print_json({"channel": task.channel, "id": message_id})
    else:
        typer.echo(message_id)


def list_queues(access: Access, *, as_json: bool) -> None:
    """Print the depth of every queue of the application.

    Raises:
        ClusterKitError: it has none; and as `Cluster.start`.
    """

    async def work(cluster: Cluster) -> list[tuple[str, QueueDepth]]:
        found = [
            (channel, await cluster.event_queue.depth(channel))
            for channel in await cluster.event_queue.channels()
        ]
        # One that somebody deleted in between is none.
        if queues := [(channel, depth) for channel, depth in found if depth is not None]:
            return queues
        configured = {Settings().app} - {None, cluster.name}
        hint = suggestion(cluster.name, map(str, configured))
        raise ClusterKitError(f"{cluster.name} has no queues{hint}")

    queues = access.run(work)
    if as_json:
        print_json(
            [
                {
                    "channel": channel,
                    "ready": depth.ready,
                    "dead": depth.dead,
                    "consumers": depth.consumers,
                }
                for channel, depth in queues
            ]
        )
        return
    columns = (
        Column("channel", fold=True),
        Column("ready", "right"),
        Column("dead", "right"),
        Column("consumers", "right"),
    )
    print_table(columns, [(name, d.ready, d.dead, d.consumers) for name, d in queues])
