"""A user's function whose effects belong to a transaction of the inbox."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, Self

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from cluster_kit.errors import ConfigurationError
from cluster_kit.message import Reject
from cluster_kit_sqlalchemy.connections import expect_commit
from cluster_kit_sqlalchemy.sessions import parts_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Effect = Callable[..., Awaitable[object]]
"""``effect(payload, session)`` or ``effect(payload, session, about)``."""

_SERIALIZATION = "40001"
_ABORTED = "25P02"
_SWALLOWED = (
    "the effect has caught an error of the database, after which nothing can be committed: have "
    "what may fail in a savepoint, async with session.begin_nested()"
)
_TRIES = 5


class Message(Protocol):
    """What is handled: a `Delivery` or an `Event`."""

    @property
    def id(self) -> str:
        """Message id."""
        ...


class Once:
    """Calls an effect in a transaction, unless its message was handled before.

    Args:
        effect: the function.
        sessions: makes sessions.
        first: notes a message within a session; returns whether it is the first to.
    """

    def __init__(
        self,
        effect: Effect,
        sessions: Callable[[], AsyncSession],
        first: Callable[[AsyncSession, Message], Awaitable[bool]],
    ) -> None:
        self._effect = effect
        self._takes = _parameters(effect)
        self._sessions = sessions
        self._first = first

    def handler(self) -> Callable[[Any, Any], Awaitable[None]]:
        """Return what can be subscribed: ``handler(payload, about)``."""

        @functools.wraps(self._effect)
        async def handle(payload: object, about: Message) -> None:
            await self._handle(payload, about)

        payload, *_ = self._takes
        about = inspect.Parameter("about", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        # What is subscribed is asked for its signature: without a session, but with the payload's
        # annotation, by which it is validated.
        vars(handle)["__signature__"] = inspect.Signature([payload, about])
        return handle

    async def _handle(self, payload: object, about: Message) -> None:
        for _ in range(_TRIES - 1):
            try:
                await self._try(payload, about)
            except _OvertakenError:
                continue
            return
        await self._try(payload, about)

    async def _try(self, payload: object, about: Message) -> None:
        arguments = (about,) if len(self._takes) > 2 else ()  # noqa: PLR2004 - the third
        async with _checked(self._sessions()) as session, session.begin():
            if await self._is_first(session, about):
                with _Held(session.sync_session) as held:
                    await self._effect(payload, session, *arguments)
                await session.run_sync(held.check)

    async def _is_first(self, session: AsyncSession, about: Message) -> bool:
        try:
            return await self._first(session, about)
        except DBAPIError as exc:
            # Where transactions are isolated it cannot be seen that another one has just noted
            # the same: a new one sees.
            if getattr(exc.orig, "sqlstate", None) == _SERIALIZATION:
                raise _OvertakenError from exc
            raise


class _Held:
    """The transaction in which a message is noted, while an effect works in it.

    An effect that ends it is found out: its message would count as handled without all of its
    effects, or its effects would be gone and the message be acknowledged.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._root = session.get_transaction()
        self._committed = False

    def __enter__(self) -> Self:
        event.listen(self._session, "after_commit", self._note)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        event.remove(self._session, "after_commit", self._note)
        if isinstance(error, Exception) and self._misused(error):
            raise self._rejection() from error

    def check(self, session: Session) -> None:
        """Raise what keeps the transaction from being committed as the effect left it."""
        if self._gone() or not self._is_whole():
            raise self._rejection()
        try:
            for part in parts_of(session):
                expect_commit(part.connection)
        except DBAPIError as exc:
            if getattr(exc.orig, "sqlstate", None) == _ABORTED:
                exc.add_detail(_SWALLOWED)
            raise

    def _note(self, session: Session) -> None:
        self._committed |= session.get_nested_transaction() is None

    def _misused(self, error: Exception) -> bool:
        """Whether `error` is not to be tried again. After a rollback most are, by all means."""
        if self._committed:
            return True
        if self._gone():
            return isinstance(error, InvalidRequestError)  # which says that it is over
        return not self._is_whole()

    def _gone(self) -> bool:
        root = self._session.get_transaction()
        return root is None or root is not self._root or not root.is_active

    def _is_whole(self) -> bool:
        return all(part.transaction.is_active for part in parts_of(self._session))

    def _rejection(self) -> Reject:
        text = "the effect of an inbox must not commit, roll back or close its session"
        if not self._committed:
            return Reject(f"{text}: the transaction was over before it was committed")
        return Reject(f"{text}: it has committed, so the message counts as handled")


class _OvertakenError(Exception):
    """Another transaction has noted the message meanwhile."""


def _checked(session: object) -> AsyncSession:
    if not isinstance(session, AsyncSession):
        raise ConfigurationError(f"sessions made no AsyncSession but {type(session).__name__}")
    return session


def _parameters(effect: Effect) -> list[inspect.Parameter]:
    name = getattr(effect, "__qualname__", repr(effect))
    if not inspect.iscoroutinefunction(effect):
        raise ConfigurationError(f"{name} must be async def")
    parameters = list(inspect.signature(effect).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) not in (2, 3) or any(p.kind not in kinds for p in parameters):
        raise ConfigurationError(f"{name} must take (payload, session) or one more, the delivery")
    return parameters
