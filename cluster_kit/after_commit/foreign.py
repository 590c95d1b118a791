"""Transactions of any object that has a hook for them."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Final

from cluster_kit.checks import takes
from cluster_kit.errors import ConfigurationError, UnknownTransactionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_kit.ports import Waiting

    _Hook = Callable[[Callable[[], None]], object]

ACCEPTS: Final = "an object with on_commit(callable) or after_commit(callable)"
_COMMIT = ("on_commit", "after_commit")
_ROLLBACK = ("on_rollback", "after_rollback")


class Hooks:
    """A `TransactionAdapter` for objects that take callables to be called at their end.

    Args:
        timeout: seconds a hook that is asynchronous may take to accept a callable.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def knows(self, transaction: object) -> bool:
        """As `TransactionAdapter.knows`."""
        return _hook(transaction, _COMMIT) is not None

    async def join(self, transaction: object, waiting: Waiting) -> None:
        """As `TransactionAdapter.join`; savepoints are left to the object, and so is any doubt.

        Raises:
            UnknownTransactionError: a hook takes no callable.
            ConfigurationError: an asynchronous hook took too long, as one does that returns only
                at the commit. Nothing will be sent.
            Exception: what a hook raised.
        """
        once = _Once(waiting.committed)
        try:
            await self._register(transaction, _ROLLBACK, once.drop)
            await self._register(transaction, _COMMIT, once)
        except BaseException:
            once.drop()
            raise

    async def _register(
        self, transaction: object, names: tuple[str, ...], call: Callable[[], None]
    ) -> None:
        hook = _hook(transaction, names)
        if hook is None:
            return
        try:
            takes(getattr(hook, "__name__", "its hook"), hook, "callable")
        except ConfigurationError as exc:
            kind = type(transaction).__name__
            raise UnknownTransactionError(kind, [ACCEPTS], f": {exc}") from None
        accepted = hook(call)
        if not inspect.isawaitable(accepted):
            return
        try:
            async with asyncio.timeout(self._timeout):
                await accepted
        except TimeoutError as exc:
            text = f"a hook of {type(transaction).__name__} took over {self._timeout:g} s"
            raise ConfigurationError(f"{text} to accept a callable") from exc


class _Once:
    """Calls at most once, and not at all after `drop`."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()

    def drop(self) -> None:
        self._call = None


def _hook(transaction: object, names: tuple[str, ...]) -> _Hook | None:
    for name in names:
        hook: _Hook | None = getattr(transaction, name, None)
        if callable(hook):
            return hook
    return None
