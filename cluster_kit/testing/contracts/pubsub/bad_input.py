"""Scenarios: what a caller gets wrong is refused at once, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster_kit.errors import (
    ConfigurationError,
    EncodeError,
    InvalidNameError,
    MessageTooLargeError,
)
from cluster_kit.testing.contracts.pubsub.base import CHANNEL, Scenarios
from cluster_kit.testing.hearer import Hearer

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.pubsub.bench import Bench

BAD_NAMES: tuple[Any, ...] = (
    *("", " ", "a b", "a\nb", "a\x00b", "x" * 201, "ä" * 101, "\ud800"),
    *(None, 17, b"bytes", ["list"]),
)
BAD_PATTERNS: tuple[Any, ...] = (*BAD_NAMES, "orders*", "*orders", "a.#b", "**", "##.a", "# .a")
BAD_MESSAGES: tuple[Any, ...] = (
    *(float("nan"), float("inf"), object(), b"bytes", {1: "x"}, {"x"}),
    *("\ud800", [[float("-inf")]], lambda: None),
)
BAD_DURATIONS: tuple[Any, ...] = (-1, float("nan"), float("inf"), "1", True, 31 * 24 * 3600)


async def _nothing() -> None: ...


async def _keyword(_message: object, *, more: object) -> None: ...


async def _generator(_message: object) -> Any:  # noqa: ANN401 - of no interest
    yield


@pytest.mark.asyncio
class BadInputScenarios(Scenarios):
    """Nothing wrong gets as far as the broker."""

    async def test_bad_channel_names_are_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        for name in (*BAD_NAMES, "orders.*", "#", "a*b"):
            with pytest.raises(InvalidNameError):
                await cluster.pubsub.publish(name, 1)
            with pytest.raises(InvalidNameError):
                await cluster.sync_messages.publish(name, 1)

    async def test_bad_patterns_are_refused(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        for pattern in BAD_PATTERNS:
            with pytest.raises(InvalidNameError):
                await cluster.pubsub.subscribe(pattern, hearer.handle)
            with pytest.raises(InvalidNameError):
                await cluster.pubsub.unsubscribe(pattern, hearer.handle)

    async def test_skip_self_and_only_self_together_are_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        with pytest.raises(ValueError, match="skip_self and only_self"):
            await cluster.pubsub.publish(CHANNEL, 1, skip_self=True, only_self=True)
        with pytest.raises(ValueError, match="skip_self and only_self"):
            await cluster.sync_messages.publish(CHANNEL, 1, skip_self=True, only_self=True)
        for bad in ("yes", 1):
            with pytest.raises(ConfigurationError, match="must be a bool"):
                await cluster.pubsub.publish(CHANNEL, 1, only_self=bad)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    async def test_what_is_no_json_is_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        for message in BAD_MESSAGES:
            with pytest.raises(EncodeError):
                await cluster.pubsub.publish(CHANNEL, message)

    async def test_a_message_over_the_limit_is_refused_and_one_at_it_is_not(
        self, bench: Bench
    ) -> None:
        cluster, hearer = await bench.cluster(max_payload_bytes=10), Hearer()
        await cluster.pubsub.subscribe(CHANNEL, hearer.handle)

        with pytest.raises(MessageTooLargeError, match="11 bytes, the limit is 10"):
            await cluster.pubsub.publish(CHANNEL, "123456789", skip_self=False)
        await cluster.pubsub.publish(CHANNEL, "12345678", skip_self=False)

        assert await hearer.hears() == ["12345678"]
        assert hearer.heard[0].event.seq == 1

    async def test_bad_options_of_a_subscription_are_refused(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        options: list[dict[str, Any]] = [
            *({"debounce": bad} for bad in BAD_DURATIONS),
            *({"debounce": 1, "max_wait": bad} for bad in BAD_DURATIONS),
            {"max_wait": 1},
            {"debounce": 2, "max_wait": 1},
            {"on_gap": "reload"},
        ]
        for bad in options:
            with pytest.raises(ConfigurationError):
                await cluster.pubsub.subscribe(CHANNEL, hearer.handle, **bad)
        assert CHANNEL not in cluster.pubsub.stats()

    async def test_what_cannot_be_called_with_a_message_is_no_handler(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        for bad in (None, "handler", _nothing, _keyword, _generator):
            with pytest.raises(ConfigurationError):
                await cluster.pubsub.subscribe(CHANNEL, bad)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
