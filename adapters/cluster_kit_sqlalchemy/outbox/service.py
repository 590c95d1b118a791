"""The front of the outbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack, cast

from sqlalchemy import MetaData

from cluster_kit.checks import truth, whole_number
from cluster_kit.clock import MAX_WAIT, SystemClock, seconds
from cluster_kit.errors import ConfigurationError
from cluster_kit.ports import Health
from cluster_kit.retry import RetryPolicy
from cluster_kit_sqlalchemy.outbox.blocking import BlockingOutbox
from cluster_kit_sqlalchemy.outbox.reports import FailedMessage, OutboxStats
from cluster_kit_sqlalchemy.outbox.store import Store
from cluster_kit_sqlalchemy.outbox.writing import Writer
from cluster_kit_sqlalchemy.relay.loop import Past, Relay, Terms
from cluster_kit_sqlalchemy.relay.turns import turns_for
from cluster_kit_sqlalchemy.schema import check_table, lacking_told
from cluster_kit_sqlalchemy.tables import outbox_table
from cluster_kit_sqlalchemy.transactional import check_cluster, check_engine, within

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from cluster_kit.clock import Duration
    from cluster_kit.ports import AdapterContext, BatchOptions, Extensible, TaskOptions
    from cluster_kit_sqlalchemy.outbox.entries import Row
    from cluster_kit_sqlalchemy.outbox.writing import BroadcastOptions
    from cluster_kit_sqlalchemy.transactional import AsyncTransaction

_RETRY = RetryPolicy(initial_delay=1.0, max_delay=60.0)
_MAX_BATCH = 1_000
_CLOCKS_DIFFER = 30.0
"""Seconds by which clocks of instances may differ without a message being tried too soon."""


class Outbox:
    """Messages as rows of your transaction: sent if, and only if, it is committed.

    What is committed is sent at least once, under the message id that was known at the call, and
    in order as far as the key is the same; by this instance or any other that has a relay.

    Args:
        cluster: whose messages these are. The relay starts and stops with it.
        engine: of the database, for the relay: PostgreSQL, or SQLite in a file.
        table: as `outbox_table` makes it; by default under its default name.
        relay: whether this instance sends; at least one has to.
        batch_size: most messages of one turn, and so most repeats after a crash. Up to 1,000.
        poll_interval: seconds between two looks when nothing wakes the relay.
        retry: when a message that was refused is tried again, its key waiting; the same for all
            relays. Defaults to delays from 1 s to 60 s.
        max_retries: after the first attempt, before a message is given up and kept as failed.
            While there is no connection, nothing counts as an attempt.
        listen: have PostgreSQL tell relays of what processes without a relay have stored. It
            costs a connection for each relay, and needs asyncpg; else polling has to do.
        stop_grace: seconds a turn under way has to end when the cluster stops; less when that has
            to stop sooner.

    Raises:
        ConfigurationError: an option is wrong, the cluster runs already or has an outbox, or the
            database is none of these.

    Attributes:
        table: where the messages are.
        blocking: the same methods for sessions and connections that block.
    """

    def __init__(  # noqa: PLR0913 - the options are the interface
        self,
        cluster: Extensible,
        engine: AsyncEngine,
        *,
        table: Table | None = None,
        relay: bool = True,
        batch_size: int = 100,
        poll_interval: Duration = 1.0,
        retry: RetryPolicy = _RETRY,
        max_retries: int = 10,
        listen: bool = True,
        stop_grace: Duration = 10.0,
    ) -> None:
        check_cluster(cluster)
        check_engine(engine)
        _check_retry(retry)
        own = outbox_table(MetaData())
        self.table: Table = own if table is None else check_table("table", table, own)
        self._terms = Terms(
            batch_size=whole_number("batch_size", batch_size, least=1, most=_MAX_BATCH),
            poll_interval=seconds("poll_interval", poll_interval, zero=False, limit=MAX_WAIT),
            retry=retry,
            max_retries=whole_number("max_retries", max_retries),
            listen=truth("listen", listen),
        )
        self._stop_grace = seconds("stop_grace", stop_grace, limit=MAX_WAIT)
        self._engine = engine
        self._outlets = cluster.outlets
        self._relays = truth("relay", relay)
        self._relay: Relay | None = None
        self._past = Past()
        self._clock = SystemClock()
        self._since = self._clock.wall()
        self._store = Store(self.table, self._outlets.app, retry.max_delay + _CLOCKS_DIFFER)
        turns_for(engine, self._store)  # also where another instance sends
        database = engine.url if self._relays else None
        self._writer = Writer(self._outlets, self._store, self._wake, self._tells, database)
        self.blocking: BlockingOutbox = BlockingOutbox(self._writer, self.table)
        cluster.extend(self)

    # --- publishing ----------------------------------------------------------------------

    async def publish(
        self,
        transaction: AsyncTransaction,
        channel: str,
        payload: object,
        *,
        key: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> str:
        """Store a task with your transaction, and return its id. Legal before start.

        Args:
            transaction: an `AsyncSession` or `AsyncConnection`; its transaction begins where it
                has not. For others see `blocking`.
            channel: name without the app's prefix.
            payload: anything JSON has, or a pydantic model.
            key: what is published under one key is sent in order, one after the other; by
                default that is all tasks of the channel. Syntax as of channels.
            options: as of `EventQueue.publish`. `ttl` and `delay` count from this call.

        Raises:
            UnknownTransactionError: `transaction` is of no such kind.
            TypeError: there is no such option.
            ConfigurationError: a name or an option is wrong; the connection is in autocommit, or on
                another database than that of the relay; or the table is missing.
            EncodeError: payload or headers cannot travel.
            MessageTooLargeError: over a limit of the event queue.
            SQLAlchemyError: of the database.
        """
        row = self._writer.task(channel, payload, key, **options)
        return (await self._store_within(transaction, [row]))[0]

    async def publish_many(
        self,
        transaction: AsyncTransaction,
        channel: str,
        payloads: Iterable[object],
        *,
        key: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> list[str]:
        """Store many tasks with your transaction, and return their ids in order.

        As `publish`; there is no `message_id` among the options. All are checked before one is
        stored.
        """
        rows = self._writer.tasks(channel, payloads, key, **options)
        return await self._store_within(transaction, rows)

    async def send_sync_message(
        self,
        transaction: AsyncTransaction,
        channel: str,
        message: object,
        *,
        key: str | None = None,
        **to: Unpack[BroadcastOptions],
    ) -> str:
        """Store a sync message with your transaction, and return its id. Legal before start.

        Args:
            transaction: as of `publish`.
            channel: that of `SyncMessageManager.publish`; a plugin's is its name.
            message: anything JSON has, null included, or a pydantic model.
            key: as of `publish`; by default that is all sync messages of the channel.
            to: `skip_self` and `only_self`, as of `SyncMessageManager.publish`; `self` is this
                instance, whichever sends it.

        Raises:
            Exception: as `publish`.
        """
        row = self._writer.broadcast("sync", channel, message, key, **to)
        return (await self._store_within(transaction, [row]))[0]

    async def broadcast(
        self,
        transaction: AsyncTransaction,
        channel: str,
        message: object,
        *,
        key: str | None = None,
        **to: Unpack[BroadcastOptions],
    ) -> str:
        """Store a message of publish and subscribe with your transaction; return its id.

        As `send_sync_message`, for subscriptions of `PubSubManager`.
        """
        row = self._writer.broadcast("pubsub", channel, message, key, **to)
        return (await self._store_within(transaction, [row]))[0]

    # --- looking after it ----------------------------------------------------------------

    async def stats(self) -> OutboxStats:
        """Count what is there, in the database, and what this instance has done."""
        async with self._connection() as connection:
            depth = await self._store.depth(connection)
        oldest = None if depth.oldest is None else max(0.0, self._clock.wall() - depth.oldest)
        counts = self._past.counts
        return OutboxStats(
            pending=depth.pending,
            failed=depth.failed,
            oldest=oldest,
            sent=counts.sent,
            refused=counts.refused,
            lag=counts.lag,
        )

    async def failed(self, limit: int = 100) -> list[FailedMessage]:
        """Return messages that were given up, oldest first."""
        most = whole_number("limit", limit, least=1)
        async with self._connection() as connection:
            rows = await connection.execute(self._store.failed(most))
            return [FailedMessage.of(row) for row in rows.mappings()]

    async def replay(self, ids: Sequence[str] | None = None) -> int:
        """Have messages that were given up tried again, by default all; return how many.

        Where their keys have gone on meanwhile, they come late.

        Args:
            ids: of messages, each a str.

        Raises:
            ConfigurationError: `ids` is no list of ids; or the table is missing.
        """
        chosen = _ids(ids)
        async with self._connection() as connection:
            count = await self._store.replay(connection, chosen)
            await connection.commit()
        self._wake()
        return count

    async def discard(self, ids: Sequence[str] | None = None) -> int:
        """Delete messages that were given up, by default all; return how many. As `replay`."""
        chosen = _ids(ids)
        async with self._connection() as connection:
            count = await self._store.discard(connection, chosen)
            await connection.commit()
        return count

    # --- life, led by Cluster ------------------------------------------------------------

    @property
    def name(self) -> str:
        """What `Cluster.health` calls it."""
        return "outbox"

    async def start(self, context: AdapterContext) -> None:
        """Begin to relay. A database that is away or lacks the table is waited for."""
        if self._relays:
            self._relay = Relay(
                self._engine, self._store, self._outlets, self._terms, self._past, context
            )
            self._relay.start()

    async def stop(self, timeout: float) -> None:
        """End relaying; the turn under way has `stop_grace` or `timeout` seconds to end well.

        Messages can still be stored.
        """
        if self._relay is not None:
            await self._relay.stop(min(self._stop_grace, timeout))

    def health(self) -> Health:
        """Return the state as known now."""
        if self._relay is None:
            return Health(status="ok", detail="no relay here", since=self._since)
        return self._relay.health()

    # --- inside --------------------------------------------------------------------------

    async def _store_within(self, transaction: object, rows: list[Row]) -> list[str]:
        insert = self._writer.insert(rows)
        return await within(transaction, self.table, insert, blocking="outbox.blocking")

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection]:
        """Have a connection to ask or change something on, which is to be committed."""
        with lacking_told(self.table):
            async with self._engine.connect() as connection:
                yield connection

    def _wake(self) -> None:
        if self._relay is not None:
            self._relay.wake()

    def _tells(self) -> bool:
        """Whether nobody here hears of a commit: a notification makes commits wait in line."""
        return self._terms.listen and (self._relay is None or not self._relay.running)


def _ids(ids: object) -> list[str] | None:
    if ids is None:
        return None
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise ConfigurationError(f"ids is a list of message ids, not one {type(ids).__name__}")
    listed = list(cast("Iterable[object]", ids))
    for each in listed:
        if not isinstance(each, str):
            raise ConfigurationError(f"ids: a message id is a str, not {type(each).__name__}")
    return cast("list[str]", listed)


def _check_retry(retry: object) -> None:
    if not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"retry is a RetryPolicy, not {type(retry).__name__}")
