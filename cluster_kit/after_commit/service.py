"""Takes messages into transactions, and sends them when these are committed."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from cluster_kit.after_commit.foreign import ACCEPTS, Hooks
from cluster_kit.after_commit.outgoing import Outgoing
from cluster_kit.after_commit.parcel import Pending, PublishFailure
from cluster_kit.errors import CommitUnconfirmed, NotStartedError, UnknownTransactionError
from cluster_kit.supervisor import Supervisor, logged

if TYPE_CHECKING:
    from cluster_kit.after_commit.parcel import Parcel
    from cluster_kit.ports import TransactionAdapter
    from cluster_kit.registry import AdapterRegistry
    from cluster_kit.telemetry import Telemetry

log = logging.getLogger(__name__)

FailureHook = Callable[[PublishFailure], object]
"""Is told what could not be published; may be asynchronous."""

HOOK_TIMEOUT = 10.0
"""Seconds an asynchronous hook of a foreign transaction may take to accept a callable."""

LEAST_PATIENCE = 1.0
"""Seconds what was committed has at a stop, and then failure hooks, however late it is."""


class AfterCommit:
    """What the services of an instance publish with ``transaction=``.

    Args:
        registry: finds the adapter of a transaction.
        telemetry: reports what could not be published.
    """

    def __init__(self, registry: AdapterRegistry, telemetry: Telemetry) -> None:
        self._registry = registry
        self._telemetry = telemetry
        self._foreign = Hooks(HOOK_TIMEOUT)
        self._failure_hooks: list[FailureHook] = []
        self._hook_runs = Supervisor()
        self._running_hooks: set[asyncio.Task[None]] = set()
        self._outgoing: Outgoing | None = None

    def on_failure(self, hook: FailureHook) -> Callable[[], None]:
        """Call `hook` with every failure from now on; return what undoes it."""
        hooks = self._failure_hooks
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    async def join(self, transaction: object, parcel: Parcel) -> str:
        """Publish `parcel` once `transaction` is committed; return its id at once.

        Raises:
            NotStartedError: the cluster is not running.
            UnknownTransactionError: nobody can tell when `transaction` is committed.
            ConfigurationError: as `TransactionAdapter.join`.
        """
        if self._outgoing is None:
            raise NotStartedError("publishing after a commit")
        pending = Pending(parcel, self._committed, self._in_doubt)
        await self._adapter(transaction).join(transaction, pending)
        return parcel.id

    async def turn(self) -> None:
        """Let what was committed before this call be sent first, as far as that is to begin."""
        if self.beginning:
            await asyncio.sleep(0)

    @property
    def beginning(self) -> bool:
        """Whether `turn` has anything to wait for."""
        return self._outgoing is not None and self._outgoing.to_begin > 0

    # --- life, led by Cluster ------------------------------------------------------------

    def open(self, supervisor: Supervisor) -> None:
        """Publish what is committed from now on, in the running event loop."""
        self._outgoing = Outgoing(supervisor, self._failed)

    async def close(self, timeout: float) -> list[str]:
        """Wait for what is on its way; return the ids of what could not be published in time.

        What is committed later is a failure.
        """
        if self._outgoing is None:
            return []
        unsent = await self._outgoing.close(max(timeout, LEAST_PATIENCE))
        self._outgoing = None
        if self._running_hooks:
            await asyncio.wait(self._running_hooks, timeout=LEAST_PATIENCE)
        for name in await self._hook_runs.close():
            log.error("still running after stop: %s", name)
        return unsent

    # --- inside --------------------------------------------------------------------------

    def _adapter(self, transaction: object) -> TransactionAdapter:
        adapter = self._registry.transactions(transaction)
        if adapter is not None:
            return adapter
        if self._foreign.knows(transaction):
            return self._foreign
        specs = self._registry.specs()
        known = [spec.transactions.accepts for spec in specs if spec.transactions is not None]
        raise UnknownTransactionError(type(transaction).__name__, [*known, ACCEPTS])

    def _committed(self, parcel: Parcel) -> None:
        if self._outgoing is None:
            self._failed(parcel, NotStartedError("publishing after a commit"))
        else:
            self._outgoing.take(parcel)

    def _in_doubt(self, parcel: Parcel, why: str) -> None:
        if parcel.kind == "cache":  # an invalidation too many costs a load, and one too few a lie
            self._committed(parcel)
            return
        error = CommitUnconfirmed(parcel.id, why)
        if self._outgoing is None:
            self._failed(parcel, error)
        else:
            self._outgoing.give_up(parcel, error)

    def _failed(self, parcel: Parcel, error: Exception) -> None:
        """Tell everybody. In the event loop; after a stop, in the thread that committed."""
        doubtful = isinstance(error, CommitUnconfirmed)
        log.error(
            "%s %s on channel %s %s: %s",
            {"task": "task", "sync": "sync message", "cache": "invalidation"}[parcel.kind],
            parcel.id,
            parcel.channel,
            "was not sent" if doubtful else "was committed and could not be published",
            error,
        )
        self._telemetry.emit(
            "commit.unpublished",
            kind=parcel.kind,
            channel=parcel.channel,
            id=parcel.id,
            error=f"{type(error).__name__}: {error}",
        )
        failure = PublishFailure.of(parcel, error)
        for hook in tuple(self._failure_hooks):
            self._tell(hook, failure)

    def _tell(self, hook: FailureHook, failure: PublishFailure) -> None:
        try:
            running = hook(failure)
        except Exception:
            log.exception("a hook for publish failures failed on %s", failure.id)
            return
        if not inspect.isawaitable(running):
            return
        work = _finish(running, failure.id)
        try:
            task = self._hook_runs.spawn(work, name=f"publish failure {failure.id}")
        except RuntimeError:  # no event loop runs in this thread
            work.close()
            if inspect.iscoroutine(running):
                running.close()
            log.error("an asynchronous hook for publish failures was not run on %s", failure.id)  # noqa: TRY400
            return
        self._running_hooks.add(task)
        task.add_done_callback(self._running_hooks.discard)


async def _finish(running: Awaitable[object], message_id: str) -> None:
    async with logged(f"a hook for publish failures, on {message_id},"):
        await running
