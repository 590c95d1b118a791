from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import Engine, event

from cluster_kit.testing.contracts.outbox import Environment, Features, OutboxContract

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import pytest


class SqliteEnvironment(Environment):
    """A file, and a hub in memory."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "shop.db"

    def url(self) -> str:
        return f"sqlite+aiosqlite:///{self._path}"

    def blocking_url(self) -> str:
        return f"sqlite:///{self._path}"

    @asynccontextmanager
    async def unwritable(self) -> AsyncGenerator[None]:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")  # there is one writer at a time
        yield
        connection.close()

    def prepare(self, engine: Engine) -> None:
        @event.listens_for(engine, "connect")
        def quicken(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA synchronous=OFF")


class TestSqliteOutbox(OutboxContract):
    features: ClassVar[Features] = Features(
        isolation=False, outage=False, two_phase=False, tells=False, row_locks=False, lax=True
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return SqliteEnvironment(request.getfixturevalue("tmp_path"))
