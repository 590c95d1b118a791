"""The database that has the rows of an inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from cluster_kit.errors import ConfigurationError
from cluster_kit_sqlalchemy.databases import shown, surely_differ

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine


class Home:
    """Refuses sessions elsewhere: what they note would not be pruned.

    Args:
        url: of the database.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._known: WeakSet[Engine] = WeakSet()  # whose database may be this one

    def check(self, engine: Engine) -> None:
        """Raise `ConfigurationError` where `engine` is surely of another database."""
        if engine in self._known:
            return
        if surely_differ(engine.url, self._url):
            text = f"the session is on {shown(engine.url)}, and the inbox on {shown(self._url)}"
            raise ConfigurationError(f"{text}: what is noted there would never be deleted")
        self._known.add(engine)
