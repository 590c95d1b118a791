"""Calls into aiormq that end when their link does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from cluster_kit_amqp.aiormq_stream import Observed
from cluster_kit_amqp.errors import Translated
from cluster_kit_amqp.link import ChannelDown, LinkDown

_GRACE = 0.5  # seconds; the driver ends most calls itself, and knows best how they ended


class Closing(Protocol):
    """The part of the driver's connections and channels that it leaves without a type."""

    @property
    def closing(self) -> asyncio.Future[object]:
        """Done when it has ended."""
        ...


class Calls:
    """The calls under way on one link.

    Some calls of the driver wait on a queue that nobody empties once the connection is gone, so
    every call runs in a scope that the loss of the link closes.
    """

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._scopes: set[asyncio.Timeout] = set()

    @property
    def lost(self) -> str | None:
        """Why the link is gone; None while it is up."""
        return self._observed.lost

    def end_all(self) -> None:
        """The link is lost: let no call outlive it by more than the grace time."""
        deadline = asyncio.get_running_loop().time() + _GRACE
        for scope in self._scopes:
            if scope.when() is None:
                scope.reschedule(deadline)

    @asynccontextmanager
    async def call(self) -> AsyncGenerator[None, None]:
        """Run a call of the driver.

        Raises:
            LinkError: whatever the driver raised, in the words of the seam.
        """
        self._observed.require()
        scope = asyncio.timeout(None)
        try:
            with Translated():
                async with scope:
                    self._scopes.add(scope)
                    yield
        except TimeoutError:
            if scope.expired():
                self._observed.require(sent=True)
            raise
        except (LinkDown, ChannelDown) as exc:
            if not getattr(exc, "code", 0):
                self._observed.require(sent=exc.sent)
            raise
        finally:
            self._scopes.discard(scope)
