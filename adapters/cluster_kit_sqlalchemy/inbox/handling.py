"""A user's function whose effects belong to a transaction of the inbox."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from cluster_kit.errors import ConfigurationError

Effect = Callable[..., Awaitable[object]]
"""``effect(payload, session)`` or ``effect(payload, session, about)``."""

_SERIALIZATION = "40001"
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
                await self._effect(payload, session, *arguments)

    async def _is_first(self, session: AsyncSession, about: Message) -> bool:
        try:
            return await self._first(session, about)
        except DBAPIError as exc:
            # Where transactions are isolated it cannot be seen that another one has just noted
            # the same: a new one sees.
            if getattr(exc.orig, "sqlstate", None) == _SERIALIZATION:
                raise _OvertakenError from exc
            raise


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
