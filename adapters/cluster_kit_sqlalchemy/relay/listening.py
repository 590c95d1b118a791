"""Hears from other processes that something has been stored, where the database can tell."""

from __future__ import annotations

import asyncio
import logging
import weakref
import zlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, TwoPhaseTransaction, func, select

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from cluster_kit.clock import Clock
    from cluster_kit_sqlalchemy.outbox.store import Store

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 5.0


def signal(store: Store) -> str:
    """Return the name under which messages of this application are told of."""
    return f"cluster_kit_outbox_{zlib.crc32(f'{store.table.fullname} {store.app}'.encode()):08x}"


def notify(connection: Connection, store: Store) -> None:
    """Tell other processes when the transaction of `connection` is committed, if they can hear.

    Once for each transaction, however often it is called.
    """
    if connection.dialect.name != "postgresql":
        return
    root = connection.get_transaction()
    if isinstance(root, TwoPhaseTransaction):  # PostgreSQL does not prepare what notifies
        return
    name = signal(store)
    nested = connection.get_nested_transaction()
    # A connection's info outlives its transactions, so it must not say only that it was done; and
    # what was said within a savepoint is taken back with that savepoint.
    told = connection.info.get(name, _never)()
    if told is None or told not in (root, nested):
        connection.execute(select(func.pg_notify(name, "")))
        connection.info[name] = weakref.ref(nested or root)


def _never() -> None:
    """Be like a reference to what is gone."""


async def listen(
    engine: AsyncEngine, store: Store, heard: Callable[[], None], clock: Clock
) -> None:
    """Call `heard` for as long as this runs: on PostgreSQL through asyncpg; else return at once.

    It has a connection beside those of the pool. While that is lost, polling has to do.
    """
    if (engine.dialect.name, engine.dialect.driver) != ("postgresql", "asyncpg"):
        return
    while True:
        try:
            await _listen(engine, signal(store), heard)
        except Exception as exc:  # noqa: BLE001 - the relay polls, and tells about the database
            log.debug("outbox listener: %r", exc)
        await clock.sleep(_AGAIN_SECONDS)


async def _listen(engine: AsyncEngine, name: str, heard: Callable[[], None]) -> None:
    lost = asyncio.Event()

    def told(*_: object) -> None:
        heard()

    def ended(*_: object) -> None:
        lost.set()

    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await connection.run_sync(Connection.detach)
        driver.add_termination_listener(ended)
        await driver.add_listener(name, told)
        heard()  # for what was stored before
        await lost.wait()
