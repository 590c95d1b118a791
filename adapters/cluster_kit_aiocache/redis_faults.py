"""Why a Redis was not connected, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import AuthenticationError, InvalidResponse
from redis.exceptions import TimeoutError as DriverTimeout

from cluster_kit_aiocache.redis_client import lasting
from cluster_kit_aiocache.server import say

if TYPE_CHECKING:
    from cluster_kit_aiocache.redis_options import RedisOptions

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")  # what OpenSSL says of plain text
_ASK_TLS = "does this port speak TLS?"


def explained(options: RedisOptions, error: Exception) -> tuple[str, bool]:
    """Return what is wrong, with a hint where the URL may be, and whether waiting helps.

    Args:
        options: the URL.
        error: one of `cluster_kit_aiocache.redis_client.DRIVER_ERRORS`.
    """
    text, kind = say(error), "Sentinel" if options.service else "Redis"
    unknown = options.service and "unknown command" in text and "SENTINEL" in text
    if unknown or isinstance(error, InvalidResponse):
        return f"what answers there is no {kind}: {text}", False
    if isinstance(error, AuthenticationError) and options.user and not options.password:
        scheme = options.url.partition("://")[0]
        hint = f"before '@' is a user alone; a password alone has a colon: {scheme}://:***@host"
        return f"{text.rstrip('.')}; {hint}", False
    if options.tls and any(word in text for word in _NO_TLS):
        return f"{text.rstrip('.')}; {_ASK_TLS}", False
    if options.tls and isinstance(error, TimeoutError | DriverTimeout):
        return f"{text}; {_ASK_TLS}", True  # a plain Redis waits for more of a command
    return text, not lasting(error)
