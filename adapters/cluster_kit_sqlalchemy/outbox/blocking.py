"""The outbox in transactions that block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from cluster_kit_sqlalchemy.transactional import within_blocking

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Table

    from cluster_kit.ports import BatchOptions, TaskOptions
    from cluster_kit_sqlalchemy.outbox.writing import BroadcastOptions, Writer
    from cluster_kit_sqlalchemy.transactional import BlockingTransaction


class BlockingOutbox:
    """The methods of `Outbox` for a `Session` or `Connection`. Got from `Outbox.blocking`.

    For code in threads, and for functions given to ``AsyncSession.run_sync``.
    """

    def __init__(self, writer: Writer, table: Table) -> None:
        self._writer = writer
        self._table = table

    def publish(
        self,
        transaction: BlockingTransaction,
        channel: str,
        payload: object,
        *,
        key: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> str:
        """As `Outbox.publish`."""
        row = self._writer.task(channel, payload, key, **options)
        return within_blocking(transaction, self._table, self._writer.insert([row]))[0]

    def publish_many(
        self,
        transaction: BlockingTransaction,
        channel: str,
        payloads: Iterable[object],
        *,
        key: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> list[str]:
        """As `Outbox.publish_many`."""
        rows = self._writer.tasks(channel, payloads, key, **options)
        return within_blocking(transaction, self._table, self._writer.insert(rows))

    def send_sync_message(
        self,
        transaction: BlockingTransaction,
        channel: str,
        message: object,
        *,
        key: str | None = None,
        **to: Unpack[BroadcastOptions],
    ) -> str:
        """As `Outbox.send_sync_message`."""
        row = self._writer.broadcast("sync", channel, message, key, **to)
        return within_blocking(transaction, self._table, self._writer.insert([row]))[0]

    def broadcast(
        self,
        transaction: BlockingTransaction,
        channel: str,
        message: object,
        *,
        key: str | None = None,
        **to: Unpack[BroadcastOptions],
    ) -> str:
        """As `Outbox.broadcast`."""
        row = self._writer.broadcast("pubsub", channel, message, key, **to)
        return within_blocking(transaction, self._table, self._writer.insert([row]))[0]
