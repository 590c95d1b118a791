from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cluster_kit.codec import JsonCodec
from cluster_kit.errors import DecodeError, EncodeError

CODEC = JsonCodec()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)


class Size(Enum):
    SMALL = "s"


class Order(BaseModel):
    id: int
    at: datetime
    size: Size = Size.SMALL


@given(payload=JSON)
def test_what_json_has_comes_back_unchanged(payload: object) -> None:
    assert CODEC.decode(CODEC.encode(payload)) == payload


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        ({"a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true]}'),
        ("Grüße", '"Grüße"'.encode()),
        ((1, 2), b"[1,2]"),
        (None, b"null"),
        ("", b'""'),
        ({}, b"{}"),
    ],
)
def test_bytes_are_compact_utf8(payload: object, body: bytes) -> None:
    assert CODEC.encode(payload) == body


@dataclass
class Parcel:
    weight: float
    orders: list[Order]


@dataclass
class Box:
    content: object


def test_dataclasses_travel_by_their_fields() -> None:
    order = Order(id=1, at=datetime(2030, 1, 1, tzinfo=UTC))
    plain = {"weight": 2.5, "orders": [order.model_dump(mode="json")]}

    assert CODEC.decode(CODEC.encode({"parcel": Parcel(2.5, [order])})) == {"parcel": plain}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (object(), "the payload is not JSON: object has no JSON form"),
        ({"a": [1, {2}]}, "set has no JSON form (at payload['a'][1])"),
        ([{"x": {1: 2}}], "key 1 is int, JSON keys are strings (at payload[0]['x'])"),
        ({"id": UUID(int=1)}, "UUID has no JSON form (at payload['id']); publish its str()"),
        ([Decimal(1)], "Decimal has no JSON form (at payload[0]); publish its str()"),
        (Order, "Order is a class, not a value of it"),
        ([Box({1: 2})], "key 1 is int, JSON keys are strings (at payload[0].content)"),
    ],
)
def test_an_error_names_the_place(payload: object, text: str) -> None:
    with pytest.raises(EncodeError, match=re.escape(text)):
        CODEC.encode(payload)


@given(key=st.none() | st.booleans() | st.integers() | st.floats(), payload=JSON)
def test_no_key_but_a_string_gets_through(key: object, payload: object) -> None:
    with pytest.raises(EncodeError):
        CODEC.encode([payload, {"inside": {key: payload}}])


@pytest.mark.parametrize("key", ["1", "-1", "1.5", "true", "false", "null", "1 of 2", '2"'])
def test_a_string_that_looks_like_another_key_is_one(key: str) -> None:
    assert CODEC.decode(CODEC.encode([{key: 1}])) == [{key: 1}]


@given(payload=JSON)
def test_the_bytes_are_those_of_compact_json(payload: object) -> None:
    expected = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)

    assert CODEC.encode(payload) == expected.encode()


@pytest.mark.parametrize("body", [b" {} \n", b"\t1", b'"x" ', b"\r[1] "])
def test_white_space_around_a_text_is_json(body: bytes) -> None:
    assert CODEC.decode(body) == json.loads(body)


@pytest.mark.parametrize("body", [b"{} {}", b"", b" ", b"\xa0{}", b"1,", "\u00a01".encode()])
def test_anything_else_around_a_text_is_not(body: bytes) -> None:
    with pytest.raises(DecodeError):
        CODEC.decode(body)


def test_a_list_inside_itself_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(EncodeError, match="inside itself"):
        CODEC.encode(circle)


def test_pydantic_models_travel_in_their_json_form_also_inside() -> None:
    order = Order(id=1, at=datetime(2030, 1, 1, tzinfo=UTC))
    plain = {"id": 1, "at": "2030-01-01T00:00:00Z", "size": "s"}

    assert CODEC.decode(CODEC.encode(order)) == plain
    assert CODEC.decode(CODEC.encode({"orders": [order]})) == {"orders": [plain]}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (datetime(2030, 1, 1, tzinfo=UTC), "datetime has no JSON form; publish its isoformat()"),
        ({"at": [date(2030, 1, 1)]}, "(at payload['at'][0]); publish its isoformat()"),
        (Box([date(2030, 1, 1)]), "(at payload.content[0]); publish its isoformat()"),
        ({"tags": {"a"}}, "set has no JSON form"),
        ([b"bytes"], "bytes has no JSON form"),
        (Order, "type"),
        ({1: "one"}, "key 1 is int, JSON keys are strings"),
        ({"a": [{None: 1}]}, "key None is NoneType, JSON keys are strings"),
        ({True: 1}, "key True is bool, JSON keys are strings"),
        (math.nan, "Out of range float values are not JSON compliant"),
        ({"a": [math.inf]}, "Out of range float values are not JSON compliant"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_what_json_has_not_is_refused_with_the_reason(payload: object, reason: str) -> None:
    pattern = f"^the payload is not JSON: .*{re.escape(reason)}"
    if payload is Order:
        pattern = "^the payload is not JSON: "

    with pytest.raises(EncodeError, match=pattern):
        CODEC.encode(payload)


def test_a_payload_that_contains_itself_is_refused() -> None:
    payload: list[object] = []
    payload.append(payload)

    with pytest.raises(EncodeError, match=r"^the payload is not JSON: "):
        CODEC.encode(payload)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": 1} trailing',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"NaN",
        b'{"a": [Infinity]}',
        b"-Infinity",
        b"1e999",
        b'{"a": -1e999}',
        b"[" * 200_000,
        b"1" * 5_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^the body is not JSON: ") as caught:
        CODEC.decode(body)

    assert caught.value.retryable is False


@given(body=st.binary())
def test_no_body_raises_anything_but_a_decode_error(body: bytes) -> None:
    try:
        payload = CODEC.decode(body)
    except DecodeError:
        return

    assert payload is None or isinstance(payload, bool | int | float | str | list | dict)
