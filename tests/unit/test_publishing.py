from __future__ import annotations

import asyncio
import math
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit import Cluster, Settings
from cluster_kit.after_commit import AfterCommit
from cluster_kit.codec import JsonCodec
from cluster_kit.errors import (
    ClusterKitError,
    ConfigurationError,
    EncodeError,
    InvalidNameError,
    MessageTooLargeError,
    NotStartedError,
    PublishManyError,
    PublishRefused,
    PublishUnconfirmed,
)
from cluster_kit.event_queue.publishing import (
    MAX_HEADERS_BYTES,
    PIPELINE,
    Publisher,
    PublishOptions,
    check_headers,
)
from cluster_kit.message import Envelope
from cluster_kit.names import QueueName
from cluster_kit.registry import AdapterRegistry
from cluster_kit.settings import EventQueueSettings
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.clock import FakeClock
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder
from tests.unit.adapters import Faults

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NAMES = TEXT.filter(
    lambda n: n not in {"", "CC", "BCC"} and not n.lower().startswith(("ck-", "x-"))
)
VALUES = TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none()
INT64 = 2**63


def options(**given: Any) -> PublishOptions:
    nothing = dict.fromkeys(("timeout", "max_retries", "delay", "ttl", "headers"))
    return PublishOptions.check(**{**nothing, **given})


def publisher(**settings: Any) -> Publisher:
    after_commit = AfterCommit(AdapterRegistry(), Telemetry())
    values, clock = EventQueueSettings(**settings), FakeClock(1000.0)
    return Publisher("shop", "one", values, JsonCodec(), clock, after_commit)


# --- headers ---


@given(headers=st.dictionaries(NAMES, VALUES, max_size=8))
def test_legal_headers_travel_unchanged_as_a_copy(headers: dict[str, object]) -> None:
    checked = check_headers(headers)

    assert checked == headers
    assert {name: type(value) for name, value in checked.items()} == {
        name: type(value) for name, value in headers.items()
    }
    assert checked is not headers


@given(
    headers=st.dictionaries(
        st.text(max_size=5) | st.integers() | st.none() | st.just("x-a"),
        VALUES | st.floats() | st.binary() | st.text() | st.lists(st.integers()),
    )
    | st.lists(st.integers())
    | st.text()
)
def test_any_headers_are_taken_or_refused_with_an_error_of_the_library(headers: object) -> None:
    try:
        checked = check_headers(headers)
    except ClusterKitError as exc:
        assert "header" in str(exc)  # noqa: PT017 - either way is right
    else:
        assert checked == headers


def test_no_headers_are_an_empty_mapping() -> None:
    assert check_headers(None) == {}


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([("a", 1)], "headers must be a mapping, not list"),
        ({"": 1}, "header name '' must be a non-empty string"),
        ({7: 1}, "header name 7 must be a non-empty string"),
        ({"ck-id": "1"}, "header 'ck-id': names starting with 'ck-' or 'x-' are reserved"),
        ({"X-Death": "1"}, "header 'X-Death': names starting with 'ck-' or 'x-' are reserved"),
        ({"price": 1.5}, "header 'price' is float; str, int, bool and None can travel"),
        ({"raw": b"1"}, "header 'raw' is bytes; str, int, bool and None can travel"),
        ({"tags": ["a"]}, "header 'tags' is list; str, int, bool and None can travel"),
        ({"big": INT64}, "header 'big': the integer does not fit 64 bits"),
        ({"small": -INT64 - 1}, "header 'small': the integer does not fit 64 bits"),
        ({"odd": "\ud800"}, "header 'odd' is not valid Unicode"),
        ({"\ud800": 1}, r"header '\ud800' is not valid Unicode"),
        ({"n" * 129: 1}, f"header name '{'n' * 40}'… is longer than 128 bytes"),
    ],
)
def test_a_header_that_cannot_travel_is_refused_by_name(headers: object, text: str) -> None:
    with pytest.raises(EncodeError, match=f"^{re.escape(text)}$"):
        check_headers(headers)


def test_headers_have_a_limit_together() -> None:
    fits = {"a": "é" * 4000, "b": "x" * (MAX_HEADERS_BYTES - 8000 - 2)}
    assert check_headers(fits) == fits

    text = (
        rf"^the set of headers has {MAX_HEADERS_BYTES + 1} bytes, the limit is {MAX_HEADERS_BYTES}$"
    )
    with pytest.raises(MessageTooLargeError, match=text):
        check_headers(fits | {"b": fits["b"] + "x"})


# --- options ---


def test_options_are_seconds() -> None:
    checked = options(
        timeout=timedelta(minutes=1), delay=timedelta(seconds=2), ttl=3, max_retries=0
    )

    assert (checked.timeout, checked.delay, checked.ttl, checked.max_retries) == (60, 2, 3, 0)
    assert options() == PublishOptions(
        timeout=None, max_retries=None, delay=0.0, ttl=None, headers={}
    )


@pytest.mark.parametrize(
    ("given_options", "text"),
    [
        ({"timeout": 0}, "timeout must be finite and above 0 seconds, not 0"),
        ({"timeout": math.inf}, "timeout must be finite and above 0 seconds, not inf"),
        ({"delay": -1}, "delay must be finite and 0 or more seconds, not -1"),
        ({"delay": 2_592_001}, "delay may be at most 2,592,000 seconds, not 2592001"),
        ({"ttl": 0}, "ttl must be finite and above 0 seconds, not 0"),
        ({"ttl": math.nan}, "ttl must be finite and above 0 seconds, not nan"),
        ({"ttl": "5"}, "ttl must be seconds or a timedelta, not str"),
        ({"max_retries": -1}, "max_retries must be from 0 to 1000000, not -1"),
        ({"max_retries": 1.5}, "max_retries must be an integer, not float"),
        ({"max_retries": True}, "max_retries must be an integer, not bool"),
    ],
)
def test_a_bad_option_is_refused_by_name(given_options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        options(**given_options)


# --- envelopes ---


def test_an_envelope_has_all_that_travels() -> None:
    made = publisher()
    queue = made.queue("mails", shared=False)
    checked = options(timeout=5, max_retries=2, delay=10, ttl=20, headers={"tenant": "a"})

    envelope = made.envelope(queue, {"id": 1}, checked, "my-id")

    assert (envelope.queue, envelope.id, envelope.body) == (queue, "my-id", b'{"id":1}')
    assert (envelope.content_type, envelope.origin) == ("application/json", "one")
    assert (envelope.published_at, envelope.expires_at) == (1000.0, 1030.0)
    assert (envelope.attempt, envelope.timeout, envelope.max_retries) == (1, 5, 2)
    assert (envelope.headers, envelope.death) == ({"tenant": "a"}, None)


def test_ids_are_made_where_none_is_given_and_checked_where_one_is() -> None:
    made, queue = publisher(), QueueName("shop", "mails")

    assert made.envelope(queue, 1, options()).id != made.envelope(queue, 1, options()).id
    with pytest.raises(InvalidNameError, match=r"^bad message id 'a b'"):
        made.envelope(queue, 1, options(), "a b")


def test_a_shared_queue_has_no_prefix() -> None:
    assert publisher().queue("audit", shared=True).full == "audit"
    assert publisher().queue("audit", shared=False).full == "shop.audit"


def test_a_payload_may_have_exactly_the_limit() -> None:
    made, queue = publisher(max_payload_bytes=10), QueueName("shop", "mails")

    assert len(made.envelope(queue, "x" * 8, options()).body) == 10
    with pytest.raises(
        MessageTooLargeError, match=r"^the payload has 11 bytes, the limit is 10$"
    ) as caught:
        made.envelope(queue, "x" * 9, options())
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (11, 10)


# --- through the queue ---


@pytest.mark.asyncio
async def test_bad_input_is_refused_before_anything_is_sent(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    queue = cluster.event_queue
    calls: list[tuple[type[Exception], Any]] = [
        (InvalidNameError, lambda: queue.publish("two words", 1)),
        (InvalidNameError, lambda: queue.publish("mails.dead", 1)),
        (EncodeError, lambda: queue.publish("mails", {1, 2})),
        (EncodeError, lambda: queue.publish("mails", 1, headers={"a": 1.5})),
        (MessageTooLargeError, lambda: queue.publish("mails", "x" * 9_000_000)),
        (ConfigurationError, lambda: queue.publish("mails", 1, delay=-1)),
        (ConfigurationError, lambda: queue.publish_many("mails", [1], ttl=0)),
        (EncodeError, lambda: queue.publish_many("mails", [1, 2, {3}])),
    ]

    for kind, call in calls:
        with pytest.raises(kind):
            await call()
    assert queue.stats() == {}
    assert await queue.depth("mails") is None


@pytest.mark.asyncio
async def test_before_start_and_after_stop_publishing_raises(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory(start=False)
    queue = cluster.event_queue

    for _ in range(2):
        with pytest.raises(NotStartedError, match=r"^event queue: the cluster is not running"):
            await queue.publish("mails", 1)
        with pytest.raises(NotStartedError):
            await queue.publish_many("mails", [1])
        with pytest.raises(NotStartedError):
            queue.dead_letters("mails")
        with pytest.raises(NotStartedError):
            await queue.purge("mails")
        async with cluster:
            pass


@pytest.mark.asyncio
async def test_many_are_published_with_ids_in_order(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()
    recorder = Recorder()
    cluster.event_queue.subscribe("mails", recorder.handle, concurrency=10)

    ids = await cluster.event_queue.publish_many("mails", range(1000), headers={"batch": 1})
    assert await cluster.event_queue.publish_many("mails", []) == []

    runs = await recorder.finished(1000)
    assert {run.delivery.id: run.payload for run in runs} == dict(
        zip(ids, range(1000), strict=True)
    )
    assert all(run.delivery.headers == {"batch": 1} for run in runs)


@pytest.mark.asyncio
async def test_the_error_about_a_batch_names_the_payload_and_the_channel(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    text = re.escape("payloads[1]: the payload is not JSON: set has no JSON form")

    with pytest.raises(EncodeError, match=f"^{text}.*channel mails"):
        await cluster.event_queue.publish_many("mails", [1, {"a": {2}}])


@pytest.mark.parametrize(
    "error", [PublishRefused("blocked"), PublishUnconfirmed("a", "no confirm")]
)
@pytest.mark.asyncio
async def test_a_batch_on_a_broker_that_takes_nothing_ends_in_time(error: Exception) -> None:
    made = Cluster(
        "shop", settings=Settings(event_queue={"url": "faulty://late", "publish_timeout": 0.2})
    )
    faults, tried = Faults(made), list[str]()

    async def late(envelope: Envelope) -> Exception:
        tried.append(envelope.id)
        await asyncio.sleep(0.2)
        return error

    faults.publish_waits = late
    async with made:
        with pytest.raises(PublishManyError):
            await made.event_queue.publish_many("mails", range(2000))

    assert len(tried) == PIPELINE


@pytest.mark.asyncio
async def test_a_cancelled_publish_many_leaves_nothing_behind(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    task = asyncio.create_task(cluster.event_queue.publish_many("mails", range(5000)))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
