from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, decode, encode
from pamqp import header as pamqp_header

from cluster_kit_amqp.link import Message
from cluster_kit_amqp.plane import properties
from cluster_kit_amqp.plane.fields import encode_table, read_table
from cluster_kit_amqp.plane.properties import body_size, decode_message, encode_header

names = st.text(max_size=30).filter(lambda name: len(name.encode()) <= 128)
moments = st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
singles = st.floats(width=32, allow_nan=False)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=50),
    st.binary(max_size=20).map(bytearray),
    moments,
    st.decimals(-999, 999, places=3),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(names, values, max_size=8)


@given(tables)
def test_a_table_written_here_is_read_by_pamqp_as_it_was(table: dict[str, object]) -> None:
    used, read = decode.field_table(encode_table(table))

    assert read == table
    assert used == len(encode_table(table))


@given(st.dictionaries(names, values | singles, max_size=8))
def test_a_table_written_by_pamqp_is_read_here_as_it_was(table: dict[str, Any]) -> None:
    raw = encode.field_table(table)

    assert read_table(b"xx" + raw + b"yy", 2) == (decode.field_table(raw)[1], 2 + len(raw))


@given(st.dictionaries(names, values | st.floats(allow_nan=False), max_size=8))
def test_a_table_comes_back_as_it_was(table: dict[str, object]) -> None:
    assert read_table(encode_table(table), 0)[0] == table


def test_values_without_a_type_become_text_or_are_left_out() -> None:
    table = {
        "huge": 2**64,
        "digits": Decimal("1.23456789012345"),
        "endless": Decimal("NaN"),
        "old": datetime(1900, 1, 1, tzinfo=UTC),
        "naive": datetime(2020, 1, 1),  # noqa: DTZ001 - what a careless caller passes
        "bytes": b"\xff",
        "object": object(),
        "nested": [object()],
    }
    read, _ = read_table(encode_table(table), 0)

    assert read == {
        "huge": str(2**64),
        "digits": "1.23456789012345",
        "endless": "NaN",
        "old": "1900-01-01 00:00:00+00:00",
        "naive": datetime(2020, 1, 1, tzinfo=UTC),
        "bytes": b"\xff",
    }


def test_a_table_deeper_than_anybody_can_follow_is_left_out() -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"x": deep}

    assert read_table(encode_table({"deep": deep, "flat": 1}), 0)[0] == {"flat": 1}


def test_numbers_that_are_none_travel() -> None:
    read, _ = read_table(encode_table({"nan": math.nan, "inf": math.inf}), 0)

    assert math.isnan(float(str(read["nan"])))
    assert read["inf"] == math.inf


short = st.text(max_size=60)
messages = st.builds(
    Message,
    body=st.binary(max_size=50),
    headers=tables,
    message_id=st.none() | short,
    content_type=st.none() | short,
    app_id=st.none() | short,
    timestamp=st.none() | st.integers(0, 2**32 - 1),
    expiration_ms=st.none() | st.integers(0, 2**32),
)


@given(messages)
def test_a_header_written_here_is_read_by_pamqp_as_it_was(message: Message) -> None:
    read = pamqp_header.ContentHeader()
    read.unmarshal(encode_header(message))
    found: Any = read.properties

    assert read.body_size == len(message.body)
    assert found.headers == message.headers
    assert (found.message_id or None) == (message.message_id or None)
    assert (found.content_type or None) == (message.content_type or None)
    assert (found.app_id or None) == (message.app_id or None)
    assert found.delivery_mode == 2
    assert (found.timestamp and found.timestamp.timestamp()) == message.timestamp
    expiration = message.expiration_ms
    assert found.expiration == (None if expiration is None else str(expiration))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "content_type": short,
            "content_encoding": short,
            "headers": tables,
            "delivery_mode": st.sampled_from([1, 2]),
            "priority": st.integers(0, 255),
            "correlation_id": short,
            "reply_to": short,
            "expiration": short,
            "message_id": short,
            "timestamp": moments,
            "message_type": short,
            "user_id": short,
            "app_id": short,
        },
    ),
    st.integers(0, 2**40),
)
def test_a_header_written_by_pamqp_is_read_here_as_it_was(
    given_properties: dict[str, Any], size: int
) -> None:
    properties = commands.Basic.Properties(**given_properties)
    raw = pamqp_header.ContentHeader(body_size=size, properties=properties).marshal()
    read = decode_message(raw)

    assert body_size(raw) == size
    assert read.headers == given_properties.get("headers", {})
    for name in ("content_type", "message_id", "app_id"):
        assert (getattr(read, name) or None) == (given_properties.get(name) or None)
    moment = given_properties.get("timestamp")
    assert read.timestamp == (moment and moment.timestamp())


@pytest.mark.parametrize(
    ("timestamp", "seconds"),
    [(1_577_836_800, 1_577_836_800), (1_577_836_800_123, 1_577_836_800.123), (2**63, None)],
)
def test_a_timestamp_in_milliseconds_is_recognised(timestamp: int, seconds: float | None) -> None:
    raw = struct.pack(">HHQHQ", 60, 0, 0, 1 << 6, timestamp)

    assert decode_message(raw).timestamp == seconds


@given(tables, st.text(min_size=1, max_size=60), st.integers(0, 2**33), st.data())
def test_own_messages_are_read_as_all_others(
    table: dict[str, object], text: str, timestamp: int, data: Any
) -> None:
    message = Message(
        body=b"x",
        headers=table,
        message_id=text,
        content_type=text[:20],
        app_id=text[-20:],
        timestamp=float(timestamp),
    )
    whole = encode_header(message)
    payload = whole[: data.draw(st.integers(14, len(whole)))]

    read = decode_message(payload)
    with mock.patch.object(properties, "_OUR_FLAGS", -1):
        assert decode_message(payload) == read
    assert decode_message(whole).message_id == text


@given(st.binary(max_size=80), st.integers(0, 65535))
def test_what_cannot_be_decoded_has_no_properties_and_raises_nothing(
    rest: bytes, flags: int
) -> None:
    decode_message(struct.pack(">HHQH", 60, 0, 1, flags) + rest)


@given(tables, st.data())
def test_a_header_cut_off_anywhere_raises_nothing(table: dict[str, object], data: Any) -> None:
    whole = encode_header(Message(body=b"x", headers=table, message_id="id", app_id="shop"))
    at = data.draw(st.integers(14, len(whole) - 1))
    read = decode_message(whole[:at])

    assert read.app_id != "shop"
    if read.headers != table:
        assert read == Message(b"")


@pytest.mark.parametrize(
    "message",
    [
        Message(body=b"", message_id="x" * 256),
        Message(body=b"", content_type="\ud800"),
        Message(body=b"", headers={"x" * 256: 1}),
        Message(body=b"", headers={"x": "\ud800"}),
        Message(body=b"", timestamp=-1.0),
    ],
)
def test_what_cannot_travel_is_refused(message: Message) -> None:
    with pytest.raises((ValueError, struct.error)):
        encode_header(message)
