"""A process that relays an outbox, and nothing else, until it is killed.

It says ``sending <id>`` before it sends a message, and ``sent <id>`` once that is settled in the
database. Started by `integration.load.outbox`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Unpack

from sqlalchemy.ext.asyncio import create_async_engine

from cluster_kit import Cluster
from cluster_kit.message import Envelope
from cluster_kit.ports import BatchOptions, Extension, Outlets, TaskOptions, TaskOutlet
from cluster_kit_sqlalchemy import Outbox


def say(what: str, id_: object) -> None:
    print(what, id_, flush=True)  # noqa: T201 - it is what the parent reads


class Telling:
    """Says what is about to be sent: what a killed process had begun is known by that alone."""

    def __init__(self, outlet: TaskOutlet) -> None:
        self._outlet = outlet

    def prepare(
        self, channel: str, payload: object, **options: Unpack[TaskOptions]
    ) -> tuple[Envelope, float]:
        return self._outlet.prepare(channel, payload, **options)

    def prepare_many(
        self, channel: str, payloads: Iterable[object], **options: Unpack[BatchOptions]
    ) -> tuple[list[Envelope], float]:
        return self._outlet.prepare_many(channel, payloads, **options)

    async def send(self, envelope: Envelope, delay: float) -> str:
        say("sending", envelope.id)
        return await self._outlet.send(envelope, delay)


class Told:
    """A cluster as its outbox sees it, with an outlet that tells."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def outlets(self) -> Outlets:
        outlets = self._cluster.outlets
        return replace(outlets, tasks=Telling(outlets.tasks))

    def extend(self, extension: Extension) -> None:
        self._cluster.extend(extension)


def settled(event: str, fields: Mapping[str, object]) -> None:
    if event == "outbox.sent":
        say("sent", fields["id"])


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--batch-size", required=True, type=int)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    cluster = Cluster()
    cluster.telemetry.subscribe(settled)
    engine = create_async_engine(options.database)
    Outbox(Told(cluster), engine, poll_interval=0.1, batch_size=options.batch_size)
    await cluster.run_until_signal()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
