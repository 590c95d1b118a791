"""Redis clients as this package wants them. The only place that knows how to make one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 - the driver's name
    NoPermissionError,
    RedisError,
)

if TYPE_CHECKING:
    from cluster_kit_aiocache.redis_options import RedisOptions

DRIVER_ERRORS = (RedisError, OSError, TimeoutError)
"""What may come out of a call."""

_CONNECT_SECONDS = 5.0
_MOST_CONNECTIONS = 100_000  # those who ask have places of their own, see `Lines`


def make_client(options: RedisOptions, *, name: str) -> Any:  # noqa: ANN401 - see there
    """Return a client that connects when it is used and is closed by its owner.

    Each command has one more try after a lost connection, which costs nothing where every script
    may be repeated; there is no limit of time but the caller's own. It is a `redis.asyncio.Redis`,
    whose own annotations leave most of its answers unknown.

    Args:
        options: where the server is.
        name: shown by the server in its list of clients.
    """
    arguments: dict[str, Any] = {
        "db": options.db,
        "username": options.user,
        "password": options.password,
        "protocol": options.protocol,
        "client_name": "".join(c if "!" <= c <= "~" else "_" for c in name),
        "socket_timeout": None,
        "max_connections": _MOST_CONNECTIONS,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 1, (ConnectionError,)),  # the driver makes OSError one too
    }
    tls = _tls(options)
    if options.service:
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            list(options.hosts),
            sentinel_kwargs={"socket_timeout": _CONNECT_SECONDS, **_sentinel_tls(options, tls)},
            **arguments,
            **_sentinel_tls(options, tls),
        )
        return sentinel.master_for(options.service)
    return Redis.from_pool(_pool(options, {**arguments, **tls}))


def _pool(options: RedisOptions, arguments: dict[str, Any]) -> ConnectionPool:
    kind: type[Connection | UnixDomainSocketConnection] = Connection
    if options.socket:
        kind, arguments = UnixDomainSocketConnection, {**arguments, "path": options.socket}
    else:
        [(host, port)] = options.hosts
        arguments = {**arguments, "host": host, "port": port}
        kind = SSLConnection if options.tls else Connection
    return ConnectionPool(connection_class=kind, **arguments)


def _tls(options: RedisOptions) -> dict[str, Any]:
    if not options.tls:
        return {}
    return {
        "ssl_ca_certs": options.cafile,
        "ssl_certfile": options.certfile,
        "ssl_keyfile": options.keyfile,
        "ssl_cert_reqs": "required" if options.verify else "none",
        "ssl_check_hostname": options.verify,
    }


def _sentinel_tls(options: RedisOptions, tls: dict[str, Any]) -> dict[str, Any]:
    return {"ssl": True, **tls} if options.tls else {}


def lasting(error: Exception) -> bool:
    """Whether waiting does not help: the server refused who we are or what we want."""
    return isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError) or (
        isinstance(error, RedisError) and "DB index" in str(error)
    )
