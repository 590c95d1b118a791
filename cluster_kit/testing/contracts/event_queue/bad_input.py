"""Scenarios: what is refused, with which error, and that nothing is published then."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import (
    AlreadySubscribedError,
    ConfigurationError,
    EncodeError,
    InvalidNameError,
    MessageTooLargeError,
)
from cluster_kit.retry import RetryPolicy
from cluster_kit.testing.contracts.event_queue.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder

BAD_NAMES = ["", " ", "a b", "a\n", "\x00", "x" * 201, "é" * 101, "a.*", "#", "\ud800", 5, None]
BAD_DURATIONS = [-1, -0.001, math.nan, math.inf, 31 * 24 * 3600, timedelta(days=31), True, "1"]


def _circle() -> object:
    circle: list[object] = []
    circle.append(circle)
    return circle


def _abyss() -> object:
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    return deep


BAD_PAYLOADS = [
    math.nan,
    {"deep": [1, -math.inf]},
    object(),
    {1: "a number as key"},
    {"deep": {None: 1}},
    {1, 2},
    b"bytes",
    "\ud800",
    _circle(),
    _abyss(),
]

BAD_HEADERS: list[tuple[object, type[Exception]]] = [
    ({"ck-id": "mine"}, EncodeError),
    ({"CK-Anything": 1}, EncodeError),
    ({"x-death": 1}, EncodeError),
    ({"CC": "audit"}, EncodeError),
    ({"BCC": "audit"}, EncodeError),
    ({"": 1}, EncodeError),
    ({5: 1}, EncodeError),
    ({"n" * 129: 1}, EncodeError),
    ({"float": 1.5}, EncodeError),
    ({"list": [1]}, EncodeError),
    ({"bytes": b""}, EncodeError),
    ({"large": 2**63}, EncodeError),
    ({"small": -(2**63) - 1}, EncodeError),
    ({"text": "\ud800"}, EncodeError),
    ([("a", 1)], EncodeError),
    ({"text": "x" * 16_384}, MessageTooLargeError),
    ({f"n{n}": "x" * 1_000 for n in range(17)}, MessageTooLargeError),
]


async def _never_idle() -> bool:
    return False


async def _expect_refusal(
    bench: Bench,
    cluster: Cluster,
    error: type[Exception],
    **call: Any,  # noqa: ANN401 - bad on purpose
) -> None:
    """Publish as `call` says, alone and as part of a batch; both are refused as a whole."""
    queue = cluster.event_queue
    payload = call.pop("payload", 1)
    with pytest.raises(error):
        await queue.publish(CHANNEL, payload, **call)
    if "message_id" not in call:
        with pytest.raises(error):
            await queue.publish_many(CHANNEL, [1, payload, 2], **call)
    assert "task.published" not in [event for event, _ in bench.events]


@pytest.mark.asyncio
class BadInputScenarios(Scenarios):
    """The right error, at once, and no trace of it in the queue."""

    async def test_bad_channel_names_are_refused_everywhere(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        queue: Any = cluster.event_queue
        for name in BAD_NAMES:
            with pytest.raises(InvalidNameError):
                await queue.publish(name, 1)
            with pytest.raises(InvalidNameError):
                await queue.publish_many(name, [1])
            with pytest.raises(InvalidNameError):
                queue.subscribe(name, Recorder().handle)
            with pytest.raises(InvalidNameError):
                queue.dead_letters(name)
            with pytest.raises(InvalidNameError):
                await queue.purge(name)

    async def test_a_channel_cannot_be_named_like_the_dead_letters_of_another(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        for name in ("mails.dead", "dead"):  # the latter: of a shared channel named like the app
            with pytest.raises(ConfigurationError):
                await cluster.event_queue.publish(name, 1)
            with pytest.raises(ConfigurationError):
                cluster.event_queue.subscribe(name, Recorder().handle)

    async def test_an_app_cannot_be_named_into_the_channels_of_another(self, bench: Bench) -> None:
        # Its channel "mails" would be channel "eu.mails" of the app before the dot.
        with pytest.raises(InvalidNameError, match="separates"):
            await bench.cluster(app=f"{bench.app}.eu")

    async def test_the_librarys_own_queues_are_nobodys_channels(self, bench: Bench) -> None:
        queue = (await bench.cluster()).event_queue
        for channel in ("ck.v1.back", "ck.v1.wait.shop.500", "ck.v1.mails"):
            with pytest.raises(InvalidNameError, match="belong to the library"):
                await queue.publish(channel, 1, shared=True)
            with pytest.raises(InvalidNameError, match="belong to the library"):
                queue.subscribe(channel, Recorder().handle, shared=True)
            with pytest.raises(InvalidNameError, match="belong to the library"):
                queue.dead_letters(channel, shared=True)

    @pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
    async def test_one_queue_under_two_names_takes_one_handler(
        self, bench: Bench, order: slice
    ) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        names = [(CHANNEL, False), (f"{bench.app}.{CHANNEL}", True)]
        (first, first_shared), (second, second_shared) = names[order]
        cluster.event_queue.subscribe(first, recorder.handle, shared=first_shared)

        with pytest.raises(AlreadySubscribedError, match=f"Recorder.handle \\(as '{first}'\\)"):
            cluster.event_queue.subscribe(second, recorder.handle, shared=second_shared)

    @pytest.mark.parametrize("option", ["delay", "ttl", "timeout"])
    async def test_bad_durations_are_refused(self, bench: Bench, option: str) -> None:
        cluster = await bench.cluster()
        for bad in BAD_DURATIONS:
            await _expect_refusal(bench, cluster, ConfigurationError, **{option: bad})
        if option != "delay":
            await _expect_refusal(bench, cluster, ConfigurationError, **{option: 0})
            await _expect_refusal(bench, cluster, ConfigurationError, **{option: timedelta()})
        depth = await cluster.event_queue.depth(CHANNEL)
        assert depth is None or depth.ready == 0

    async def test_bad_retry_counts_are_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        for bad in (-1, 1.5, True, "1", math.inf):
            await _expect_refusal(bench, cluster, ConfigurationError, max_retries=bad)

    async def test_bad_message_ids_are_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        for bad in ("", "a b", "a\n", "x" * 201, "\ud800", 5):
            await _expect_refusal(bench, cluster, InvalidNameError, message_id=bad)

    async def test_payloads_that_are_no_json_are_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        for bad in BAD_PAYLOADS:
            await _expect_refusal(bench, cluster, EncodeError, payload=bad)
        depth = await cluster.event_queue.depth(CHANNEL)
        assert depth is None or depth.ready == 0

    async def test_headers_that_cannot_travel_are_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        for bad, error in BAD_HEADERS:
            await _expect_refusal(bench, cluster, error, headers=bad)

    async def test_a_payload_over_the_limit_is_refused_and_one_at_it_is_not(
        self, bench: Bench
    ) -> None:
        cluster, recorder = await bench.cluster(max_payload_bytes=1_000), Recorder()
        with pytest.raises(MessageTooLargeError) as refused:
            await cluster.event_queue.publish(CHANNEL, "x" * 999)  # and two quotation marks
        assert (refused.value.size_bytes, refused.value.limit_bytes) == (1_001, 1_000)

        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish(CHANNEL, "x" * 998)
        await recorder.finished()
        assert recorder.payloads == ["x" * 998]

    async def test_a_payload_of_the_default_limit_travels(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        largest = "x" * (8 * 1024 * 1024 - 2)

        with pytest.raises(MessageTooLargeError):
            await cluster.event_queue.publish(CHANNEL, largest + "x")
        await cluster.event_queue.publish(CHANNEL, largest)

        await recorder.finished()
        assert recorder.payloads == [largest]

    async def test_bad_options_of_a_subscription_are_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        queue: Any = cluster.event_queue
        bad_options: list[tuple[str, list[object]]] = [
            ("concurrency", [-1, 1.5, True, "1", 70_000]),
            ("max_retries", [-1, 1.5, True]),
            ("timeout", [0, *BAD_DURATIONS]),
            ("serves", ["a topic"]),
            ("retry", [3, True, {"initial_delay": 1}, RetryPolicy]),
            ("idle", [True, "no", _never_idle]),
        ]
        for option, values in bad_options:
            for bad in values:
                with pytest.raises(ConfigurationError):
                    queue.subscribe(CHANNEL, Recorder().handle, **{option: bad})
        queue.subscribe(CHANNEL, Recorder().handle)  # none of them left a trace

    async def test_one_payload_is_no_batch(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        queue: Any = cluster.event_queue
        for bad in ("abc", b"abc", {"a": 1}, 5, None):
            with pytest.raises(ConfigurationError, match="payloads"):
                await queue.publish_many(CHANNEL, bad)
        assert "task.published" not in [event for event, _ in bench.events]

    async def test_what_cannot_be_called_with_a_payload_is_no_handler(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        queue: Any = cluster.event_queue

        async def nothing() -> None: ...

        async def too_much(_payload: object, _delivery: object, _more: object) -> None: ...

        async def keyword(_payload: object, *, _more: object) -> None: ...

        for bad in (None, "handle", nothing, too_much, keyword):
            with pytest.raises(ConfigurationError):
                queue.subscribe(CHANNEL, bad)

    async def test_an_unknown_topic_in_the_worker_mode_is_refused_at_start(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster(start=False, worker_mode="mails:sned")
        cluster.event_queue.subscribe(CHANNEL, Recorder().handle, serves="mails:send")

        with pytest.raises(ConfigurationError, match="mails:send"):
            await cluster.start()
