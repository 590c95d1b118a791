"""Values of caches on Redis."""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redis.exceptions import AuthenticationError, InvalidResponse, ResponseError

from cluster_kit.errors import CacheUnavailable
from cluster_kit.names import new_id
from cluster_kit.ports import HEAD_BYTES, Health, StoreCapabilities
from cluster_kit_aiocache.redis_client import lasting
from cluster_kit_aiocache.redis_lines import is_refusal
from cluster_kit_aiocache.redis_server import RedisServer
from cluster_kit_aiocache.server import PATIENCE, say
from cluster_kit_aiocache.store_scripts import INCREMENT, REMOVE, RENEW, SWAP, WRITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from cluster_kit.ports import AdapterContext
    from cluster_kit_aiocache.redis_lines import Lines, Word

T = TypeVar("T")

CAPABILITIES = StoreCapabilities(backend="redis", scope="server")

_SCAN_COUNT = 1000
_LATE_SECONDS = 3.0  # after which a command whose connection was lost is not tried again


class RedisStore:
    """A `CacheStore` on one Redis server, or on the primary that sentinels name.

    Its commands are repeated once after a lost connection, without another effect but that of a
    value which is written again.

    Args:
        url: see `cluster_kit_aiocache.redis_options`.
        context: of the instance.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str, context: AdapterContext) -> None:
        self._server = RedisServer(url, context, "cache", CacheUnavailable)

    @property
    def capabilities(self) -> StoreCapabilities:
        """What it promises."""
        return CAPABILITIES

    # --- life ------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Tell the server the scripts, within the context's `connect_timeout`.

        Raises:
            ConnectError: unreachable or refused.
        """
        if not self._server.connected:
            await self._server.connect(_greet)

    async def close(self) -> None:
        """Close every connection."""
        await self._server.close()

    def health(self) -> Health:
        """Return how the last call went."""
        return self._server.health()

    # --- values ----------------------------------------------------------------------------------

    async def read(self, keys: Sequence[str], *, timeout: float) -> list[bytes | None]:
        """Return values."""
        if not keys:
            return []
        return await self._ask(partial(_mget, keys), timeout)

    async def write(
        self,
        items: Mapping[str, bytes],
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> list[bytes | None]:
        """Store values, then read."""
        if len(items) == 1:
            [(key, body)] = items.items()
            return await self._ask(partial(_set, key, body, _milliseconds(ttl), then_read), timeout)
        values: list[Word] = [_milliseconds(ttl), len(items), *items.values()]

        async def call(lines: Lines) -> list[bytes | None]:
            found = await WRITE.run(lines, keys=[*items, *then_read], values=values)
            return _values(found, then_read)

        return await self._ask(call, timeout)

    async def swap(
        self,
        key: str,
        body: bytes | None,
        *,
        expected: bytes | None,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> tuple[bool, list[bytes | None]]:
        """Store a value over what is expected, then read."""
        is_expected = int(expected is not None)
        millis, old, new = _milliseconds(ttl), expected or b"", body or b""
        values: list[Word] = [is_expected, old, new, millis, HEAD_BYTES]

        async def call(lines: Lines) -> tuple[bool, list[bytes | None]]:
            run = partial(SWAP.run, lines, repeat=expected is not None)
            done, found = await run(keys=[key, *then_read], values=values)
            return bool(int(done)), _values(found, then_read)

        return await self._ask(call, timeout)

    async def renew(
        self,
        keys: Sequence[str],
        make: Callable[[], bytes],
        *,
        present: bool,
        ttl: float | None,
        timeout: float,
    ) -> list[bytes | None]:
        """Give keys values there never were."""
        values: list[Word] = [_milliseconds(ttl), int(present), *[make] * len(keys)]

        async def call(lines: Lines) -> list[bytes | None]:
            return _values(await RENEW.run(lines, keys=keys, values=values), keys)

        return await self._ask(call, timeout)

    async def remove(
        self, keys: Sequence[str], *, once: bool = False, timeout: float
    ) -> list[bytes | None]:
        """Remove values."""

        async def call(lines: Lines) -> list[bytes | None]:
            heads = await REMOVE.run(lines, keys=list(keys), values=[], repeat=not once)
            return [head or None for head in _values(heads, keys)]

        return await self._ask(call, timeout)

    async def increment(
        self,
        key: str,
        amount: int,
        *,
        ttl: float | None,
        then_read: Sequence[str] = (),
        timeout: float,
    ) -> tuple[int, list[bytes | None]]:
        """Add to a counter, then read."""
        note = f"{key} {new_id()}"  # no key of a caller has a space
        values = [amount, _milliseconds(ttl), _milliseconds(timeout + _LATE_SECONDS)]

        async def call(lines: Lines) -> tuple[int, list[bytes | None]]:
            count, found = await INCREMENT.run(lines, keys=[key, note, *then_read], values=values)
            return int(count), _values(found, then_read)

        return await self._ask(call, timeout)

    async def keys(self, prefix: str, *, timeout: float) -> list[str]:
        """Return keys, some thousand at a time."""
        return await self._ask(partial(_scan, prefix), timeout)

    async def _ask(self, call: Callable[[Lines], Awaitable[T]], timeout: float) -> T:
        async def told(lines: Lines) -> T:
            try:
                return await call(lines)
            except ResponseError as exc:
                if not is_refusal(exc):
                    raise
                retryable = not lasting(exc)
                raise CacheUnavailable("", say(exc), refused=True, retryable=retryable) from exc

        try:
            return await self._server.ask("", told, timeout, patience=PATIENCE * timeout)
        except CacheUnavailable as exc:
            if exc.refused or not isinstance(exc.__cause__, AuthenticationError):
                raise
            raise CacheUnavailable("", exc.reason, retryable=False) from exc.__cause__


async def _greet(lines: Lines) -> None:
    for script in (WRITE, SWAP, RENEW, REMOVE, INCREMENT):
        await script.load(lines)


def _values(answer: Any, keys: Sequence[str]) -> list[bytes | None]:  # noqa: ANN401 - anything
    """Return an answer that has a value for each of these keys. Raises `InvalidResponse`."""
    if isinstance(answer, list):
        found = cast("list[object]", answer)
        if len(found) == len(keys) and all(v is None or isinstance(v, bytes) for v in found):
            return cast("list[bytes | None]", found)
    raise InvalidResponse("an answer has another shape than the question")


async def _mget(keys: Sequence[str], lines: Lines) -> list[bytes | None]:
    return _values(await lines.execute_command("MGET", *keys), keys)


async def _set(
    key: str, body: bytes, millis: int, then_read: Sequence[str], lines: Lines
) -> list[bytes | None]:
    """As `WRITE` for one value, which is quicker without a script."""
    life: tuple[Word, ...] = ("PX", millis) if millis else ()
    commands: list[Sequence[Word]] = [("SET", key, body, *life)]
    if then_read:
        commands.append(("MGET", *then_read))
    _, *found = await lines.execute_commands(*commands)
    return _values(found[0], then_read) if found else []


async def _scan(prefix: str, lines: Lines) -> list[str]:
    pattern = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in prefix) + "*"
    found: set[str] = set()
    cursor: bytes | int = 0
    while True:
        words = ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
        cursor, keys = await lines.execute_command(*words)
        found.update(key.decode(errors="replace") for key in keys)
        if not int(cursor):
            return sorted(found)


def _milliseconds(ttl: float | None) -> int:
    return 0 if ttl is None else max(1, ceil(ttl * 1000))
