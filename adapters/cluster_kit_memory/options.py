"""The adapter's URLs.

============================== ====================================================================
``memory://``                  hub ``default`` of this process
``memory://name``              another hub; instances on one hub share its queues
``memory://name?path=work.db`` the same, with unfinished work and dead letters kept in a file
============================== ====================================================================

A hub lives as long as an instance on one event loop uses it. With a file, publishing returns once
the task is on disk (fsync; what comes together is written together). What happens to it later,
handing out and acknowledging, survives a kill of the process at once and a loss of power from the
next publish on; what is lost there is a repeated run, never a task. The file belongs to one process
at a time and must be on a local disk.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from cluster_kit.errors import ConfigurationError, ConnectError, UnknownOptionError
from cluster_kit.names import check_name
from cluster_kit.urls import redact_url

DEFAULT_HUB = "default"
KNOWN_OPTIONS = ("path",)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """What a URL says.

    Attributes:
        url: as given.
        hub: name of the hub.
        path: absolute path of the file behind the hub; None keeps nothing.
    """

    url: str
    hub: str
    path: Path | None

    def check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse a hub of the event loop `loop` to whoever runs on another.

        Raises:
            ConnectError: this is another event loop.
        """
        if loop is not asyncio.get_running_loop():
            text = (
                f"hub {self.hub!r} belongs to another event loop of this process, which is "
                "still open; take another hub name"
            )
            raise ConnectError(self.url, text, retryable=False)


def parse_url(url: str) -> MemoryOptions:
    """Return the options in `url`.

    Values are percent-decoded; a plus sign stays one, since paths have them.

    Raises:
        UnknownOptionError: an option other than ``path``.
        ConfigurationError: a wrong value, or a URL that has parts this adapter does not know.

    >>> parse_url("memory://orders").hub
    'orders'
    """
    shown = redact_url(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"{shown!r} is no URL") from None
    if "@" in parts.netloc:
        raise ConfigurationError(f"{shown!r}: a hub has no user and no password")
    if parts.path not in {"", "/"}:
        hint = f"memory://{parts.netloc}?path={parts.path}"
        raise ConfigurationError(f"{shown!r}: a file is named by an option, as in {hint!r}")
    if parts.fragment:
        raise ConfigurationError(f"{shown!r}: a '#' in a value is written %23")
    hub = check_name("hub name", unquote(parts.netloc)) if parts.netloc else DEFAULT_HUB
    options = _query(parts)
    path = _path(options["path"]) if "path" in options else None
    return MemoryOptions(url=url, hub=hub, path=path)


def _query(parts: SplitResult) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in filter(None, parts.query.split("&")):
        name, _, value = pair.partition("=")
        if name not in KNOWN_OPTIONS:
            raise UnknownOptionError("a memory:// URL", name, KNOWN_OPTIONS)
        if name in options:
            raise ConfigurationError(f"option {name!r} of a memory:// URL is given twice")
        options[name] = unquote(value)
    return options


def _path(value: str) -> Path:
    if not value or "\0" in value:
        text = f"option 'path' of a memory:// URL names a file, not {value!r}"
        raise ConfigurationError(text)
    return Path(value).resolve()
