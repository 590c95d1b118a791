"""Puts messages into the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict, Unpack
from weakref import WeakSet

from cluster_kit.errors import ConfigurationError
from cluster_kit.ports import BatchOptions, TaskOptions
from cluster_kit.wording import suggestion
from cluster_kit_sqlalchemy.databases import in_memory, shown, surely_differ
from cluster_kit_sqlalchemy.outbox.entries import broadcast_row, task_row
from cluster_kit_sqlalchemy.relay.bell import Commits
from cluster_kit_sqlalchemy.relay.listening import notify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import URL, Connection, Engine

    from cluster_kit.ports import Outlets
    from cluster_kit_sqlalchemy.outbox.entries import Row
    from cluster_kit_sqlalchemy.outbox.store import Store

Realm = Literal["sync", "pubsub"]
"""Which of the two a broadcast belongs to."""


class BroadcastOptions(TypedDict, total=False):
    """Whom a broadcast is for; see `PubSubManager.publish`."""

    skip_self: bool | None
    only_self: bool


class Writer:
    """Makes rows of messages, and inserts them.

    Args:
        outlets: makes the messages.
        store: takes them.
        wake: called when what was inserted is being committed.
        tells: whether the database is to tell other processes.
        database: of the relay of this instance; None where it has none.
    """

    def __init__(
        self,
        outlets: Outlets,
        store: Store,
        wake: Callable[[], None],
        tells: Callable[[], bool],
        database: URL | None,
    ) -> None:
        self._outlets = outlets
        self._store = store
        self._commits = Commits(wake)
        self._tells = tells
        self._database = database
        self._known: WeakSet[Engine] = WeakSet()  # whose database may be that of the relay

    def task(
        self, channel: str, payload: object, key: str | None, **options: Unpack[TaskOptions]
    ) -> Row:
        """Return the row of a task. Raises as `TaskOutlet.prepare`."""
        _check_names("publish", options, TaskOptions.__optional_keys__)
        envelope, delay = self._outlets.tasks.prepare(channel, payload, **options)
        return task_row(self._outlets.app, envelope, delay, key)

    def tasks(
        self,
        channel: str,
        payloads: Iterable[object],
        key: str | None,
        **options: Unpack[BatchOptions],
    ) -> list[Row]:
        """Return the rows of many tasks. Raises as `TaskOutlet.prepare_many`."""
        _check_names("publish_many", options, BatchOptions.__optional_keys__)
        envelopes, delay = self._outlets.tasks.prepare_many(channel, payloads, **options)
        return [task_row(self._outlets.app, envelope, delay, key) for envelope in envelopes]

    def broadcast(
        self,
        kind: Realm,
        channel: str,
        message: object,
        key: str | None,
        **to: Unpack[BroadcastOptions],
    ) -> Row:
        """Return the row of a broadcast. Raises as `BroadcastOutlet.prepare`."""
        method = "send_sync_message" if kind == "sync" else "broadcast"
        _check_names(method, to, BroadcastOptions.__optional_keys__)
        realm = self._outlets.sync_messages if kind == "sync" else self._outlets.pubsub
        return broadcast_row(self._outlets.app, kind, realm.prepare(channel, message, **to), key)

    def insert(self, rows: Sequence[Row]) -> Callable[[Connection], list[str]]:
        """Return what inserts rows through a connection and returns their message ids."""

        def work(connection: Connection) -> list[str]:
            self._check(connection.engine)
            if rows:
                self._store.insert(connection, rows)
                self._commits.expect(connection)
                if self._tells():
                    notify(connection, self._store)
            return [str(row["id"]) for row in rows]

        return work

    def _check(self, engine: Engine) -> None:
        """Refuse to store where the relay does not look."""
        if engine in self._known:
            return
        problem = ""
        if self._database is not None and surely_differ(engine.url, self._database):
            problem = f"and the outbox sends from {shown(self._database)}"
        elif in_memory(engine.url):
            problem = "a database in memory, where no relay looks"
        if problem:
            text = f"transaction is on {shown(engine.url)}, {problem}"
            raise ConfigurationError(f"{text}: what is stored there would never leave")
        self._known.add(engine)


def _check_names(method: str, options: Mapping[str, object], known: frozenset[str]) -> None:
    """Raise `TypeError` as a function does; what is called inside would name itself."""
    for name in options:
        if name not in known:
            text = f"Outbox.{method}() got an unexpected keyword argument {name!r}"
            raise TypeError(text + suggestion(name, known))
