"""What the contract is told: where database and broker are, and what they cannot do."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_kit.testing.selection import ContractFeatures

if TYPE_CHECKING:
    from sqlalchemy import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(ContractFeatures):
    """What database and environment can do. Scenarios that need more are not run."""

    isolation: bool = True
    """Transactions can be run at READ COMMITTED, REPEATABLE READ and SERIALIZABLE."""

    outage: bool = True
    """The database can be stopped and started: `Environment.stop_database`."""

    two_phase: bool = True
    """Transactions can be prepared, and committed later."""

    tells: bool = True
    """The database tells relays what processes without a relay have stored."""

    row_locks: bool = True
    """A transaction can lock single rows."""

    lax: bool = False
    """Columns keep what is not of their type."""


class Environment:
    """A database and a broker for the time of one scenario."""

    def url(self) -> str:
        """Return the database's URL for `create_async_engine`."""
        raise NotImplementedError

    def blocking_url(self) -> str:
        """Return the database's URL for `create_engine`."""
        raise NotImplementedError

    def broker(self) -> str:
        """Return the URL of event queue and publish-subscribe; empty for a hub in memory."""
        return ""

    def prepare(self, engine: Engine) -> None:
        """Do what is to be done to an engine before it is used, such as listening to its events."""

    def unwritable(self) -> AbstractAsyncContextManager[None]:
        """Have the database refuse every write meanwhile, also of transactions under way.

        It can still be read.
        """
        raise NotImplementedError

    async def stop_database(self) -> None:
        """End it, with every connection."""
        raise NotImplementedError

    async def start_database(self) -> None:
        """Start it again, with what is stored."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything."""
