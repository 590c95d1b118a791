"""A subscription as the user declared it. It outlives connections and restarts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cluster_kit.checks import takes
from cluster_kit.clock import MAX_WAIT, Duration, seconds
from cluster_kit.errors import ConfigurationError
from cluster_kit.pubsub.context import Options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from cluster_kit.handler import Handler
    from cluster_kit.pubsub.lane import Lane


class Subscription:
    """What `subscribe` returns. As an async context manager it closes itself.

    Attributes:
        channel: channel or pattern, as subscribed.
    """

    def __init__(self, channel: str, leave: Callable[[], Awaitable[None]]) -> None:
        self.channel: str = channel
        self._leave = leave

    async def close(self) -> None:
        """Unsubscribe: no call begins from now on, and one under way has ended on return.

        It has ``pubsub.close_grace`` seconds to end before it is cancelled. Called from within
        the handler it does not wait for that. Idempotent; also legal when nothing runs.
        """
        await self._leave()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()


@dataclass(slots=True, kw_only=True, eq=False)
class Registration:
    """A handler on a channel or pattern.

    Attributes:
        lane: there while the instance is connected.
        left: the last one it had; a call of it may still be under way.
    """

    name: str
    handler: Handler
    options: Options
    subscription: Subscription
    lane: Lane | None = None
    left: Lane | None = None

    def change(self, options: Options) -> None:
        """Replace its options, also those of the lane it has."""
        self.options = options
        if self.lane is not None:
            self.lane.change(options)


def check_options(
    debounce: Duration, max_wait: Duration | None, on_gap: Callable[[list[str]], object] | None
) -> Options:
    """Return a subscription's options.

    Raises:
        ConfigurationError: one is wrong; the text names it.
    """
    wait = seconds("debounce", debounce, limit=MAX_WAIT)
    longest = None if max_wait is None else seconds("max_wait", max_wait, limit=MAX_WAIT)
    if longest is not None and not wait:
        raise ConfigurationError("max_wait bounds a debounce, and there is none")
    if longest is not None and longest < wait:
        raise ConfigurationError(f"max_wait ({longest:g} s) is below debounce ({wait:g} s)")
    if on_gap is not None:
        takes("on_gap", on_gap, "channels")
    return Options(debounce=wait, max_wait=longest, on_gap=on_gap)
