"""A process that relays an outbox, and nothing else, until it is killed.

It says ``sent`` once it has sent a message. Started by `integration.load.outbox`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import create_async_engine

from cluster_kit import Cluster
from cluster_kit_sqlalchemy import Outbox


def say(event: str, _fields: Mapping[str, object]) -> None:
    if event == "outbox.sent":
        print("sent", flush=True)  # noqa: T201 - it is what the parent waits for


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    cluster = Cluster()
    cluster.telemetry.subscribe(say)
    engine = create_async_engine(options.database)
    Outbox(cluster, engine, poll_interval=0.1)
    await cluster.run_until_signal()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
