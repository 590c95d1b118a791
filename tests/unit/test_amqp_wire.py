from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster_kit.clock import MAX_WAIT
from cluster_kit.errors import InvalidNameError
from cluster_kit.message import MAX_RETRIES, DeadReason, Death, Envelope
from cluster_kit.names import QueueName, check_message_id
from cluster_kit_amqp.link import Incoming, Message
from cluster_kit_amqp.packed import Packed
from cluster_kit_amqp.plane.fields import encode_table, read_table, unpack_table
from cluster_kit_amqp.tasks import plain
from cluster_kit_amqp.tasks.wire import (
    MAX_ERROR_BYTES,
    MAX_HEADERS_BYTES,
    redeliveries,
    to_envelope,
    to_message,
)

QUEUE = QueueName("shop", "mails")

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=30),
    st.builds(bytearray, st.binary(max_size=10)),
    st.decimals(allow_nan=False),
    st.datetimes(timezones=st.just(UTC)),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
known = st.sampled_from(
    [
        "ck-id",
        "ck-attempt",
        "ck-max-retries",
        "ck-timeout-ms",
        "ck-expires-at",
        "ck-published-at",
        "ck-origin",
        "ck-reason",
        "ck-error-type",
        "ck-error-text",
        "ck-instance",
        "ck-died-at",
        "x-death",
        "x-first-death-reason",
        "x-last-death-reason",
        "x-delivery-count",
        "x-acquired-count",
    ]
)
deaths = st.lists(
    st.dictionaries(st.sampled_from(["queue", "reason", "time", "count"]), anything, max_size=4),
    max_size=3,
)
junk = st.builds(
    Message,
    body=st.binary(max_size=20),
    headers=st.one_of(
        st.dictionaries(st.one_of(known, st.text(max_size=20)), anything, max_size=8),
        st.fixed_dictionaries({"x-death": deaths}),
    ),
    message_id=st.one_of(st.none(), st.text(max_size=300)),
    content_type=st.one_of(st.none(), st.text(max_size=300)),
    app_id=st.one_of(st.none(), st.text(max_size=20)),
    timestamp=st.one_of(st.none(), st.floats(min_value=0, max_value=2.5e11)),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(junk, st.booleans(), st.booleans())
def test_whatever_comes_becomes_a_sound_envelope(
    message: Message, dead: bool, redelivered: bool
) -> None:
    envelope = to_envelope(message, QUEUE, dead=dead)

    assert check_message_id(envelope.id)
    assert envelope.body == message.body
    assert envelope.attempt >= 1
    assert envelope.max_retries is None or envelope.max_retries >= 0
    assert envelope.timeout is None or 0 < envelope.timeout <= MAX_WAIT
    for moment in (envelope.published_at, envelope.expires_at):
        assert moment is None or datetime.fromtimestamp(moment, UTC).year >= 1970
    assert not any(name.startswith(("ck-", "x-")) for name in envelope.headers)
    assert (envelope.death is not None) is dead
    assert redeliveries(Incoming(message=message, tag=1, redelivered=redelivered)) >= 0
    again = to_message(envelope, copy_id="copy", app="shop")
    assert to_envelope(again, QUEUE, dead=dead).id == envelope.id


envelopes = st.builds(
    Envelope,
    queue=st.just(QUEUE),
    id=st.uuids().map(lambda value: value.hex),
    body=st.binary(max_size=50),
    content_type=st.one_of(st.none(), st.sampled_from(["application/json", "text/plain"])),
    published_at=st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
    attempt=st.integers(1, 2**31 - 1),
    max_retries=st.one_of(st.none(), st.integers(0, MAX_RETRIES)),
    crashes=st.integers(0, 2**31 - 1),
    timeout=st.one_of(st.none(), st.integers(1, int(MAX_WAIT * 1000)).map(lambda ms: ms / 1000)),
    expires_at=st.one_of(st.none(), st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)),
    origin=st.text(alphabet="abc-", max_size=40),
    headers=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=10),
        st.one_of(st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.none()),
        max_size=5,
    ),
    death=st.one_of(
        st.none(),
        st.builds(
            Death,
            reason=st.sampled_from(DeadReason),
            error_type=st.text("abc.", max_size=20),
            error_text=st.text(max_size=50).filter(lambda text: text.isprintable()),
            instance_id=st.text("abc-", max_size=20),
            died_at=st.one_of(
                st.none(), st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)
            ),
        ),
    ),
)


@given(envelopes)
def test_an_envelope_survives_the_journey(envelope: Envelope) -> None:
    message = to_message(envelope, copy_id="copy", app="shop", expiration_ms=5)

    assert to_envelope(message, QUEUE, dead=envelope.death is not None) == envelope
    assert (message.message_id, message.app_id, message.expiration_ms) == ("copy", "shop", 5)


def test_headers_of_the_broker_are_never_sent() -> None:
    headers = {"x-death": [], "x-delivery-count": 3, "ck-attempt": 9, "tenant": "x"}
    task = Envelope(queue=QUEUE, id="1", body=b"", headers=headers)
    message = to_message(task, copy_id="c", app="shop")

    assert set(message.headers) == {"ck-id", "ck-attempt", "tenant"}
    assert message.headers["ck-attempt"] == 1


def test_a_long_error_text_is_cut_between_characters() -> None:
    task = Envelope(queue=QUEUE, id="1", body=b"")
    dead = replace(task, death=Death(reason=DeadReason.FAILED, error_text="€" * MAX_ERROR_BYTES))
    text = to_message(dead, copy_id="c", app="shop").headers["ck-error-text"]

    assert isinstance(text, str)
    assert MAX_ERROR_BYTES - 3 < len(text.encode()) <= MAX_ERROR_BYTES
    assert set(text) == {"€"}


def test_the_largest_headers_go_when_all_are_too_many() -> None:
    headers = {f"h{n}": "x" * n for n in (10, 30_000, 60_000, 90_000)}
    task = Envelope(
        queue=QUEUE, id="1", body=b"", headers=headers | {"blob": b"x" * MAX_HEADERS_BYTES}
    )
    message = to_message(task, copy_id="c", app="shop")

    assert {name for name in message.headers if name.startswith("h")} == {"h10", "h30000", "h60000"}


@pytest.mark.parametrize("origin", [{}, {"ck-origin": 7}, {"ck-origin": None}])
def test_crashes_and_expiry_are_not_for_other_clients(origin: dict[str, object]) -> None:
    told: dict[str, object] = {"ck-crashes": 9, "ck-expires-at": 5_000, "ck-attempt": 3}
    foreign = to_envelope(Message(body=b"", headers=told | origin), QUEUE)
    own = to_envelope(Message(body=b"", headers=told | {"ck-origin": "i-1"}), QUEUE)

    assert (foreign.crashes, foreign.expires_at, foreign.attempt) == (0, None, 3)
    assert (own.crashes, own.expires_at, own.attempt) == (9, 5.0, 3)


def test_a_copy_of_another_client_s_task_keeps_its_crashes() -> None:
    copy = replace(to_envelope(Message(body=b""), QUEUE), crashes=4)

    assert to_envelope(to_message(copy, copy_id="c", app="shop"), QUEUE).crashes == 4


# --- broker's bookkeeping ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redelivered", "headers", "expected"),
    [
        (False, {}, 0),
        (False, {"x-delivery-count": 7}, 0),
        (True, {"x-delivery-count": 7}, 7),
        (True, {}, 1),
        (True, {"x-acquired-count": 4}, 0),
        (True, {"x-acquired-count": 4, "x-delivery-count": 2}, 2),
        (True, {"x-acquired-count": 4, "x-delivery-count": 4}, 4),
        (True, {"x-acquired-count": 4, "x-delivery-count": 1000}, 0),
        (True, {"x-delivery-count": -1}, 1),
        (True, {"x-delivery-count": "7"}, 1),
        (True, {"x-delivery-count": True}, 1),
    ],
)
def test_redeliveries(redelivered: bool, headers: dict[str, object], expected: int) -> None:
    message = Message(body=b"", headers=headers)

    assert redeliveries(Incoming(message=message, tag=1, redelivered=redelivered)) == expected


def death_of(**headers: object) -> Death:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    death = to_envelope(Message(body=b"", headers=names), QUEUE, dead=True).death
    assert death is not None
    return death


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("expired", DeadReason.EXPIRED),
        ("delivery_limit", DeadReason.CRASHED),
        ("rejected", DeadReason.REJECTED),
        ("maxlen", DeadReason.FAILED),
    ],
)
def test_the_broker_s_reasons(reason: str, expected: DeadReason) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    entry = {"queue": QUEUE.full, "reason": reason, "time": at, "count": 1}
    waited = {"queue": "ck.v1.wait.shop.500", "reason": "expired", "time": at, "count": 1}
    death = death_of(x_death=[entry, waited], x_first_death_reason="expired")

    assert death.reason is expected
    assert death.died_at == at.timestamp()
    assert death_of(x_death=[waited, entry]).reason is expected
    assert death_of(x_first_death_reason=reason).reason is expected


def test_the_broker_s_word_counts_more_than_a_publisher_s() -> None:
    entry = {"queue": QUEUE.full, "reason": "expired"}

    assert death_of(x_death=[entry], ck_reason="rejected").reason is DeadReason.EXPIRED
    assert death_of(ck_reason="rejected").reason is DeadReason.REJECTED
    assert death_of(ck_reason="no reason").reason is DeadReason.FAILED
    assert death_of(ck_reason=3, ck_died_at=Decimal(1)).died_at is None


texts = st.text(min_size=1, max_size=40)


@given(
    st.one_of(st.just("a1" * 16), texts),
    st.integers(1, 2**31 - 1),
    st.one_of(st.just("instance1234"), st.just(""), texts),
    st.one_of(st.none(), st.integers(0, 2**33)),
    st.fixed_dictionaries({}, optional={"max_retries": st.integers(0, 9), "crashes": st.just(2)}),
)
def test_the_headers_most_tasks_have_say_what_a_table_says(
    id_: str, attempt: int, origin: str, published_at: int | None, more: dict[str, Any]
) -> None:
    task = Envelope(
        queue=QUEUE,
        id=id_,
        body=b"{}",
        attempt=attempt,
        origin=origin,
        published_at=published_at,
        **more,
    )
    message = to_message(task, copy_id="copy", app="shop")
    try:
        raw = encode_table(message.headers)
    except UnicodeEncodeError:
        return
    table = read_table(raw, 0)[0]

    assert dict(message.headers) == table
    assert encode_table(table) == raw
    packed, plainly = (
        to_envelope(Message(b"{}", headers, message_id="copy"), QUEUE)
        for headers in (Packed(raw, unpack_table), table)
    )
    try:
        check_message_id(id_)
    except InvalidNameError:
        return  # a fresh id each, where it has none
    assert packed == plainly


@given(st.binary(max_size=160), st.integers(0, 160), st.integers(0, 255))
def test_whatever_a_table_holds_it_is_read_as_any_other(
    noise: bytes, place: int, octet: int
) -> None:
    task = Envelope(queue=QUEUE, id="a" * 32, body=b"", origin="i" * 12, published_at=1.8e9)
    own = bytearray(encode_table(to_message(task, copy_id="c", app="shop").headers))
    own[place % len(own)] = octet
    for raw in (bytes(own), noise):
        table = unpack_table(raw) or {}
        found = plain.unpack(raw)

        assert found is None or found == table
