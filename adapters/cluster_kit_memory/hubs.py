"""The hubs of this process, by name, and who uses them."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cluster_kit.errors import ConnectError
from cluster_kit.ports import delivery_limit
from cluster_kit_memory.hub import Hub
from cluster_kit_memory.queue_file import QueueFileError
from cluster_kit_memory.store import FileStore, NoStore

if TYPE_CHECKING:
    from pathlib import Path

    from cluster_kit.ports import AdapterContext
    from cluster_kit_memory.options import MemoryOptions
    from cluster_kit_memory.store import Contents, Store

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class OpenHub:
    """A hub in use.

    Attributes:
        opened: set once its file is read, or has the `QueueFileError`.
        users: instances that use it.
        closing: set once the last user has left; then done when the file is free again.
    """

    name: str
    path: Path | None
    loop: asyncio.AbstractEventLoop
    hub: Hub
    store: Store
    opened: asyncio.Future[None]
    users: int = 0
    closing: asyncio.Future[None] | None = None


class Hubs:
    """Opens a hub for its first user and closes it after the last.

    A hub belongs to the event loop of its first user, because what it hands out is handled there.
    A user on another loop is refused while that loop is open: it would wait for tasks that can
    never come. The hub of a closed loop is gone, whoever forgot to close it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: dict[str, OpenHub] = {}

    async def enter(self, options: MemoryOptions, context: AdapterContext) -> OpenHub:
        """Return the hub of `options`, with one more user.

        Raises:
            ConnectError: it belongs to another event loop or another file, or the file cannot be
                used.
        """
        while True:
            with self._guard:
                found = self._find_or_open(options, context)
                if found.closing is None:
                    found.users += 1
                    break
            await asyncio.shield(found.closing)
        try:
            await asyncio.shield(found.opened)
        except QueueFileError as exc:
            await self.leave(found)
            raise ConnectError(options.url, str(exc), retryable=exc.passing) from exc
        except asyncio.CancelledError:
            self._leave(found)  # reading cannot be stopped; the file is closed once it ends
            raise
        return found

    async def leave(self, used: OpenHub) -> None:
        """Have one user less; after the last one the hub is gone and its file is free."""
        self._leave(used)
        if used.closing is not None:
            await asyncio.shield(used.closing)

    def _leave(self, used: OpenHub) -> None:
        used.users -= 1
        if used.users == 0:
            self._report_loss(used)
            used.closing = used.store.close()
            used.closing.add_done_callback(partial(self._forget, used))

    def _forget(self, used: OpenHub, _closed: asyncio.Future[None]) -> None:
        with self._guard:
            if self._open.get(used.name) is used:
                del self._open[used.name]

    def _find_or_open(self, options: MemoryOptions, context: AdapterContext) -> OpenHub:
        self._drop_stale()
        found = self._open.get(options.hub)
        if found is None or (found.closing is not None and found.closing.done()):
            return self._open_new(options, context)
        options.check_loop(found.loop)
        if found.path != options.path:
            text = f"hub {options.hub!r} is in use with {found.path or 'no file'}"
            raise ConnectError(options.url, text, retryable=False)
        return found

    def _open_new(self, options: MemoryOptions, context: AdapterContext) -> OpenHub:
        for other in self._open.values():
            if other.path == options.path is not None and other.name != options.hub:
                text = f"{options.path} is in use by hub {other.name!r} of this process"
                raise ConnectError(options.url, text, retryable=False)
        loop = asyncio.get_running_loop()
        store = NoStore() if options.path is None else FileStore(options.path, context.clock)
        limit = delivery_limit(context.crash_limit)
        hub = Hub(clock=context.clock, store=store, redelivery_limit=limit)
        new = OpenHub(options.hub, options.path, loop, hub, store, loop.create_future())
        if isinstance(store, FileStore):
            store.open().add_done_callback(partial(_take_over, new))
        else:
            new.opened.set_result(None)
        self._open[new.name] = new
        return new

    def _drop_stale(self) -> None:
        for stale in [used for used in self._open.values() if used.loop.is_closed()]:
            del self._open[stale.name]
            stale.store.abandon()

    @staticmethod
    def _report_loss(used: OpenHub) -> None:
        unfinished, dead = used.hub.unfinished(), used.hub.dead()
        if used.path is None and (unfinished or dead):
            text = (
                "memory hub %r is closed: %d unfinished tasks and %d dead letters are gone; "
                "memory://%s?path=FILE keeps them"
            )
            log.warning(text, used.name, unfinished, dead, used.name)


def _take_over(new: OpenHub, reading: asyncio.Future[Contents]) -> None:
    """Give the hub what was read. Runs even when nobody waits for it any more."""
    error = reading.exception()
    if error is None:
        if new.closing is None:
            new.hub.load(reading.result())
        new.opened.set_result(None)
    else:
        new.opened.set_exception(error)
        new.opened.exception()  # retrieved: whoever waited may have been cancelled


HUBS = Hubs()
"""Of this process: a hub's name means the same to every instance in it."""
