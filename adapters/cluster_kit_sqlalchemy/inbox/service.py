"""The front of the inbox."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)
from sqlalchemy.orm import scoped_session, sessionmaker

from cluster_kit.checks import takes
from cluster_kit.clock import SystemClock, seconds
from cluster_kit.errors import ConfigurationError
from cluster_kit.message import Reject
from cluster_kit.names import check_name
from cluster_kit.ports import Health
from cluster_kit_sqlalchemy.inbox.handling import Message, Once
from cluster_kit_sqlalchemy.inbox.home import Home
from cluster_kit_sqlalchemy.inbox.records import PRUNE_BATCH, Records
from cluster_kit_sqlalchemy.schema import check_table, lacking_told
from cluster_kit_sqlalchemy.tables import inbox_table
from cluster_kit_sqlalchemy.transactional import (
    check_cluster,
    check_engine,
    within,
    within_blocking,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sqlalchemy import Connection, Table

    from cluster_kit.clock import Duration
    from cluster_kit.ports import AdapterContext, Extensible
    from cluster_kit_sqlalchemy.inbox.handling import Effect
    from cluster_kit_sqlalchemy.transactional import AsyncTransaction, BlockingTransaction

log = logging.getLogger(__name__)

_JITTER = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxStats:
    """What an inbox of this instance has done since it was made.

    Attributes:
        first: messages it met for the first time; some may have been rolled back.
        repeated: messages it had met before.
        pruned: rows it has deleted.
    """

    first: int
    repeated: int
    pruned: int


class Inbox:
    """Makes the effects of a message in your database happen once for each consumer.

    That a message was handled is a row of the transaction that has its effects: both are
    committed, or neither. Messages come at least once; one that comes again finds the row.

    Args:
        cluster: whose messages these are. With it pruning starts and stops.
        engine: of the database that has the effects: PostgreSQL or SQLite.
        table: as `inbox_table` makes it; by default under its default name.
        sessions: makes the sessions of `handler`, on the database of `engine`; by default plain
            ones.
        retention: seconds, or a timedelta, for which a message is remembered. Longer than it may
            take to come again, also from the dead letters. Defaults to 7 days.
        prune_interval: seconds between two rounds of deleting what is older.

    Raises:
        ConfigurationError: an option is wrong, the cluster runs already or has an inbox, or the
            database is none of these, or `sessions` are of another one.

    Attributes:
        table: where it is noted.
    """

    def __init__(
        self,
        cluster: Extensible,
        engine: AsyncEngine,
        *,
        table: Table | None = None,
        sessions: Callable[[], AsyncSession] | None = None,
        retention: Duration = timedelta(days=7),
        prune_interval: Duration = 600.0,
    ) -> None:
        check_cluster(cluster)
        check_engine(engine)
        own = inbox_table(MetaData())
        self.table: Table = own if table is None else check_table("table", table, own)
        self._records = Records(self.table, cluster.outlets.app)
        self._records.check(engine.dialect)
        self._engine = engine
        self._home = Home(engine.url)
        self._sessions = _session_maker(sessions, engine, self._home)
        self._retention = seconds("retention", retention, zero=False)
        self._interval = seconds("prune_interval", prune_interval, zero=False)
        self._since = SystemClock().wall()
        self._consumers: set[str] = set()
        self._context: AdapterContext | None = None
        self._pruning: asyncio.Task[None] | None = None
        self._trouble: Health | None = None
        self._first = self._repeated = self._pruned = 0
        self._counting = threading.Lock()  # `first_blocking` is called in threads
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0  # of the loop
        cluster.extend(self)

    # --- handling ------------------------------------------------------------------------

    def handler(self, consumer: str) -> Callable[[Effect], Callable[[Any, Any], Awaitable[None]]]:
        """Make a handler of ``effect(payload, session)`` or ``effect(payload, session, about)``.

        It opens a session, notes the message, calls the effect, and commits. Of a message that was
        handled before, the effect is not called; one that is being handled elsewhere is waited
        for. When the effect raises, all is rolled back and the error is the handler's. Subscribe
        it to the event queue, to sync messages or to publish and subscribe; `about` is their
        `Delivery` or `Event`. What the effect does elsewhere happens as often as it is tried. It
        must not commit, roll back or close the session, which raises `Reject`: the message goes
        to the dead letters. Savepoints (``session.begin_nested()``) are its own.

        Args:
            consumer: what remembers: 1 to 200 bytes, kept for good. Two handlers of one message
                need two names.

        Raises:
            ConfigurationError: the name is malformed or taken, or the effect cannot be called.
        """
        name = self._consumer(consumer)
        self._check_free(name)

        async def first(session: AsyncSession, message: Message) -> bool:
            return await self.first(session, message, consumer=name)

        def decorate(effect: Effect) -> Callable[[Any, Any], Awaitable[None]]:
            handler = Once(effect, self._sessions, first).handler()
            self._check_free(name)
            self._consumers.add(name)  # not before the effect is found right
            return handler

        return decorate

    async def first(
        self, transaction: AsyncTransaction, message: Message, *, consumer: str
    ) -> bool:
        """Note a message in your transaction; return whether it was not handled before.

        For transactions of your own: where it is false, do nothing. Call it before anything else
        in them. It waits while another transaction is about to note the same.

        Args:
            transaction: an `AsyncSession` or `AsyncConnection`.
            message: a `Delivery`, an `Event`, or anything that has an `id`.
            consumer: as of `handler`.

        Raises:
            UnknownTransactionError: `transaction` is of no such kind.
            ConfigurationError: the name is malformed, `message` has no id, the connection is in
                autocommit or on another database than `engine`, or the table is missing.
            Reject: the message has no id of its own, so that a repetition could not be known. Let
                it leave the handler: the message goes to the dead letters.
            SQLAlchemyError: of the database; at REPEATABLE READ and SERIALIZABLE also when another
                transaction has noted the same meanwhile: begin anew then.
        """
        note = self._note(message, consumer)
        return await within(transaction, self.table, note, blocking="first_blocking")

    def first_blocking(
        self, transaction: BlockingTransaction, message: Message, *, consumer: str
    ) -> bool:
        """As `first`, for a `Session` or `Connection`."""
        return within_blocking(transaction, self.table, self._note(message, consumer))

    # --- looking after it ----------------------------------------------------------------

    async def prune(self) -> int:
        """Delete what is older than `retention`, batch by batch; return how many rows."""
        total, count = 0, PRUNE_BATCH
        while count == PRUNE_BATCH:
            with lacking_told(self.table):
                count = await self._records.prune(self._engine, self._retention)
            total += count
        self._pruned += total
        self._emit("inbox.pruned", count=total)
        return total

    def stats(self) -> InboxStats:
        """Return what this instance has done."""
        return InboxStats(first=self._first, repeated=self._repeated, pruned=self._pruned)

    # --- life, led by Cluster ------------------------------------------------------------

    @property
    def name(self) -> str:
        """What `Cluster.health` calls it."""
        return "inbox"

    async def start(self, context: AdapterContext) -> None:
        """Begin to prune."""
        self._context = context
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._pruning = context.tasks.spawn(self._prune_for_ever(context), name="inbox pruning")

    async def stop(self, timeout: float) -> None:
        """End pruning, within `timeout` seconds. Messages can still be noted."""
        pruning, self._pruning = self._pruning, None
        if pruning is not None:
            pruning.cancel()
            await asyncio.wait([pruning], timeout=timeout)

    def health(self) -> Health:
        """Return the state as known now."""
        return self._trouble or Health(status="ok", detail="", since=self._since)

    # --- inside --------------------------------------------------------------------------

    @staticmethod
    def _consumer(name: object) -> str:
        return check_name("consumer", name)

    def _check_free(self, name: str) -> None:
        if name in self._consumers:
            raise ConfigurationError(f"there are two handlers for consumer {name!r}")

    def _note(self, message: Message, consumer: str) -> Callable[[Connection], bool]:
        name, message_id = self._consumer(consumer), _id_of(message)

        def note(connection: Connection) -> bool:
            self._home.check(connection.engine)
            first = self._records.note(connection, name, message_id)
            with self._counting:
                self._first += first
                self._repeated += not first
            if not first:
                self._emit("inbox.repeated", consumer=name, id=message_id)
            return first

        return note

    async def _prune_for_ever(self, context: AdapterContext) -> None:
        while True:
            # Not all instances at once, and not at every start.
            varied = self._interval * (1 + _JITTER * context.random.uniform(-1, 1))
            await context.clock.sleep(varied)
            try:
                await self.prune()
                if self._trouble is not None:
                    self._trouble, self._since = None, context.clock.wall()
            except Exception as exc:  # noqa: BLE001 - the next round may do better
                text = f"pruning failed: {exc}"
                log.warning("inbox: %s", text)
                since = self._trouble.since if self._trouble else context.clock.wall()
                self._trouble = Health(status="degraded", detail=text, since=since)

    def _emit(self, event: str, **fields: object) -> None:
        """Tell telemetry, whose observers are called on the event loop."""
        context, loop = self._context, self._loop
        if context is None or loop is None:
            return
        if threading.get_ident() == self._thread:
            context.emit(event, **fields)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody observes
            loop.call_soon_threadsafe(partial(context.emit, event, **fields))


def _session_maker(given: object, engine: AsyncEngine, home: Home) -> Callable[[], AsyncSession]:
    if given is None:
        return async_sessionmaker(engine, expire_on_commit=False)
    kind = type(given).__name__
    if isinstance(given, sessionmaker | scoped_session):
        wrong = f"{kind} makes sessions that block: take an async_sessionmaker"
        raise ConfigurationError(f"sessions: a {wrong}")
    takes("sessions", given)
    if isinstance(given, async_sessionmaker):
        bind: object = given.kw.get("bind")
        if isinstance(bind, AsyncEngine | AsyncConnection):
            home.check(bind.sync_engine)
    return cast("Callable[[], AsyncSession]", given)


def _id_of(message: Message) -> str:
    message_id: object = getattr(message, "id", None)
    if not isinstance(message_id, str) or not message_id:
        kind = type(message).__name__
        raise ConfigurationError(f"message must be a Delivery, an Event or have an id, not {kind}")
    if not getattr(message, "id_is_stable", True):
        raise Reject(
            "the publisher gave this message no id, so it has another one at each delivery, and "
            "an inbox could not keep its effects from happening again"
        )
    return message_id
