"""A PostgreSQL, and databases in it."""

from __future__ import annotations

import os
import pwd
import shutil
import struct
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster_kit.testing.servers.node import NodeUnavailableError
from cluster_kit.testing.servers.plain import (
    ContainerServer,
    GivenServer,
    Kind,
    LocalServer,
    start_plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster_kit.testing.servers.plain import PlainServer

_FOLDER = Path("/usr/lib/postgresql")  # Debian's, with a folder for each version
_ACCOUNTS = ("postgres", "nobody")  # for root, whom the program refuses

# After a kill what is left of it takes a moment to notice, and its file may name a dead process
# that nobody has buried. And it is told to end quickly: on SIGTERM it would wait for its clients.
_SCRIPT = """
bin=$1 data=$2 account=$3; shift 3
if [ -n "$account" ]; then
  chown "$account" "$data" "$data/.."
  as="setpriv --reuid=$account --init-groups --"
fi
[ -e "$data/PG_VERSION" ] ||
  $as "$bin/initdb" --no-sync --auth=trust --username=postgres --encoding=UTF8 -D "$data" || exit 1
[ ! -e "$data/postmaster.pid" ] || { sleep 0.5; rm "$data/postmaster.pid"; }
$as "$bin/postgres" -D "$data" "$@" & p=$!
trap 'kill -INT $p' TERM
wait $p; wait $p
"""

_EVERYWHERE = {
    "max_connections": "200",
    "max_prepared_transactions": "20",  # none by default, and so no two-phase commits
}
_OPTIONS = {
    **_EVERYWHERE,
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # the end of the machine is no part of any test
}


def _words(options: Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


def _hello() -> bytes:
    """Return the first message of a client: an answer comes only when clients are let in."""
    said = b"\x00".join((b"user", b"postgres", b"database", b"postgres", b"", b""))
    return struct.pack("!II", len(said) + 8, 3 << 16) + said


def _arguments(port: int, folder: Path) -> Sequence[str]:
    account = ""
    if os.geteuid() == 0:
        account = next(name for name in _ACCOUNTS if name in {a.pw_name for a in pwd.getpwall()})
    place = (str(_programs()), str(folder), account)
    return ["-c", _SCRIPT, "postgresql", *place, "-p", str(port), *_words(_OPTIONS)]


POSTGRESQL = Kind(
    name="postgresql",
    variable="CLUSTER_KIT_TEST_POSTGRESQL_URL",
    program="sh",
    arguments=_arguments,
    image="postgres:17.6-alpine",
    port=5432,
    question=_hello(),
    answer=(b"R",),
    environment={"POSTGRES_HOST_AUTH_METHOD": "trust"},
    command=("postgres", *_words(_EVERYWHERE)),
)
"""How one is found, started and asked."""


def _local(kind: Kind) -> PlainServer:
    _programs()
    return LocalServer(kind)


_PROVIDERS: Sequence[Callable[[Kind], PlainServer]] = (GivenServer, ContainerServer, _local)


def start_postgresql() -> PostgresServer:
    """Return a PostgreSQL to test against; `PostgresServer.close` ends it.

    Raises:
        NodeUnavailableError: there is none; the text says why, provider by provider.
    """
    if find_spec("psycopg") is None:
        raise NodeUnavailableError("no databases can be made: psycopg is not installed")
    return PostgresServer(start_plain(POSTGRESQL, _PROVIDERS))


class PostgresServer:
    """A server with databases for tests. Its methods block: in a coroutine use `to_thread`."""

    def __init__(self, server: PlainServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """URL of the database every server has."""
        parts = urlsplit(self._server.url)
        if parts.username is None:
            parts = parts._replace(netloc=f"postgres@{parts.netloc}")
        return parts._replace(path=parts.path.rstrip("/") or "/postgres").geturl()

    @property
    def origin(self) -> str:
        """Where the server comes from, for people."""
        return self._server.origin

    @property
    def can_control(self) -> bool:
        """Whether `stop` and `start` work: not on a server that others may be using."""
        return self._server.can_control

    def new_url(self) -> str:
        """Make a database and return its URL."""
        name = f"ck_test_{uuid.uuid4().hex[:12]}"
        self.execute(f'CREATE DATABASE "{name}"')
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def drop(self, url: str) -> None:
        """Remove a database that `new_url` made, whoever is connected."""
        name = urlsplit(url).path.removeprefix("/")
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement as the server's administrator."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server, or with `kill` end it without warning; what it has stored stays."""
        self._server.stop(kill=kill)

    def start(self) -> None:
        """Start it again on its port; return when clients are let in."""
        self._server.start()

    def close(self) -> None:
        """End the server if it is ours. Idempotent."""
        self._server.close()


def _programs() -> Path:
    """Return the folder of the newest PostgreSQL of this machine."""
    found = shutil.which("postgres")
    paths = sorted(_FOLDER.glob("*/bin/postgres"), key=lambda path: path.parts[-3].zfill(9))
    if found is not None:
        paths.append(Path(found).resolve())
    for path in reversed(paths):
        if (path.parent / "initdb").is_file():
            return path.parent
    raise NodeUnavailableError("postgres is not installed")
