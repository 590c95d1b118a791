"""An instance that keeps a table equal in memory by sync messages, and writes down how it went.

Started by `integration.load.sync_scenario`; where it connects and what it is called is in the
environment. On SIGTERM it stops, and writes down what it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, text

from cluster_kit import Cluster, Plugin
from integration.load.journal import Journal

SCHEMA = "CREATE TABLE ck_items (name TEXT PRIMARY KEY, version INTEGER)"


class Items(Plugin):
    """Holds the version of each item. A message says which has changed, and to what."""

    name = "items"

    def __init__(self, engine: Engine, journal: Journal) -> None:
        self._engine = engine
        self._journal = journal
        self.versions: dict[str, int] = {}

    async def load(self) -> None:
        self.versions = await asyncio.to_thread(read, self._engine)

    async def handle_sync_message(self, message: dict[str, int | str]) -> None:
        name, version = str(message["name"]), int(message["version"])
        # What was loaded anew may be newer than a message that is still in line.
        self.versions[name] = max(version, self.versions.get(name, 0))
        self._journal.write("heard", str(version))

    async def on_sync_gap(self) -> None:
        self._journal.write("gap")
        await self.load()
        self._journal.write("loaded anew")


def read(engine: Engine) -> dict[str, int]:
    """Return the version of each item in the database."""
    with engine.connect() as connection:
        return rows(connection)


def rows(connection: Connection) -> dict[str, int]:
    """Return the version of each item."""
    found = connection.execute(text("SELECT name, version FROM ck_items"))
    return {str(name): int(version) for name, version in found}


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--database", required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    journal = Journal(options.journal)
    items = Items(create_engine(options.database), journal)
    cluster = Cluster(plugins=[items])
    cluster.telemetry.subscribe(journal.observe)
    left = await cluster.run_until_signal()
    journal.write("holds", "", json.dumps(items.versions, sort_keys=True))
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
