from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from cluster_kit.errors import ConfigurationError, DecodeError
from cluster_kit.message import Delivery
from tests.unit.handlers import handler, hidden, takes_anything, takes_payload, traced

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers

NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer"
NO_ITEMS = "List should have at least 1 item after validation, not 0"


class Order(BaseModel):
    id: int
    items: list[str] = Field(min_length=1)


@dataclass
class Point:
    x: int
    y: int = 0


class Address(TypedDict):
    city: str


async def wants_order(payload: Order) -> None: ...


async def wants_point(payload: Point, delivery: Delivery) -> None: ...
async def wants_address(payload: Address) -> None: ...
async def wants_numbers(payload: list[int]) -> None: ...
async def wants_maybe(payload: int | None) -> None: ...
async def wants_choice(payload: Literal["a", "b"]) -> None: ...
async def wants_positive(payload: Annotated[int, Field(gt=0)]) -> None: ...
async def wants_dict(payload: dict[str, Any], delivery: OnlyForTypeCheckers) -> None: ...
async def wants_list(payload: list[object]) -> None: ...
async def wants_bare_list(payload: list) -> None: ...  # type: ignore[type-arg]
async def wants_keys(payload: dict[int, Any]) -> None: ...


class Keeper:
    async def keep(self, payload: Order) -> None: ...
    async def __call__(self, payload: Order) -> None: ...


@pytest.mark.parametrize(
    ("process", "body", "payload"),
    [
        (wants_order, {"id": 1, "items": ["a"]}, Order(id=1, items=["a"])),
        (wants_point, {"x": 1}, Point(1)),
        (wants_address, {"city": "Bonn"}, {"city": "Bonn"}),
        (wants_numbers, [1, 2], [1, 2]),
        (wants_maybe, None, None),
        (wants_maybe, 3, 3),
        (wants_choice, "a", "a"),
        (wants_positive, 1, 1),
        (wants_dict, {"a": [1]}, {"a": [1]}),
        (wants_list, [1, "a", None], [1, "a", None]),
        (wants_bare_list, [1, "a", None], [1, "a", None]),
        (wants_keys, {"1": "a"}, {1: "a"}),
        (takes_payload, {"any": None}, {"any": None}),
        (takes_anything, 1, 1),
        (Keeper().keep, {"id": 1, "items": ["a"]}, Order(id=1, items=["a"])),
        (Keeper(), {"id": 1, "items": ["a"]}, Order(id=1, items=["a"])),
        (functools.partial(wants_order), {"id": 1, "items": ["a"]}, Order(id=1, items=["a"])),
        (traced(wants_point), {"x": 1}, Point(1)),
        (hidden(traced(wants_numbers)), [1], [1]),
    ],
)
def test_an_annotated_payload_is_validated(process: object, body: object, payload: object) -> None:
    decoded = handler(process).decode(json.dumps(body).encode(), "application/json")

    assert decoded == payload
    assert type(decoded) is type(payload)


@pytest.mark.parametrize(
    ("process", "body", "text"),
    [
        (
            wants_order,
            {"id": "s3cret", "items": []},
            f"wants_order takes: id: {NO_INTEGER}; items: {NO_ITEMS}",
        ),
        (wants_point, {}, "wants_point takes: x: Field required"),
        (wants_address, {"city": 7}, "wants_address takes: city: Input should be a valid string"),
        (wants_numbers, {}, "wants_numbers takes: payload: Input should be a valid array"),
        (wants_choice, "s3cret", "wants_choice takes: payload: Input should be 'a' or 'b'"),
        (wants_positive, 0, "wants_positive takes: payload: Input should be greater than 0"),
        (wants_dict, ["s3cret"], "wants_dict takes: payload: Input should be an object"),
        (wants_list, {"s3cret": 1}, "wants_list takes: payload: Input should be a valid array"),
        (wants_bare_list, None, "wants_bare_list takes: payload: Input should be a valid array"),
        (Keeper().keep, {"items": ["a"]}, "Keeper.keep takes: id: Field required"),
    ],
)
def test_a_payload_of_another_form_is_refused_without_showing_it(
    process: object, body: object, text: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        handler(process).decode(json.dumps(body).encode(), None)

    assert str(caught.value) == f"the payload is not what {text}"


def test_of_many_findings_five_are_told() -> None:
    with pytest.raises(DecodeError) as caught:
        handler(wants_numbers).decode(json.dumps(["s3cret"] * 8).encode(), None)

    text = str(caught.value)
    assert "s3cret" not in text
    assert text.count("valid integer") == 5
    assert text.endswith(f"4: {NO_INTEGER} (+3 more)")


class Loop(BaseModel):
    inner: NotDefinedAnywhere  # type: ignore[name-defined]  # noqa: F821 - that is the point


class NoSchema: ...


async def wants_unknown(payload: NotDefinedAnywhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def wants_type_checkers_own(payload: OnlyForTypeCheckers) -> None: ...
async def wants_loop(payload: Loop) -> None: ...
async def wants_no_schema(payload: NoSchema) -> None: ...


@pytest.mark.parametrize(
    ("process", "text"),
    [
        (
            wants_unknown,
            "handler wants_unknown: cannot resolve the annotation 'NotDefinedAnywhere': name '",
        ),
        (
            wants_type_checkers_own,
            "handler wants_type_checkers_own: cannot resolve the annotation 'OnlyForTypeCheckers'",
        ),
        (wants_loop, "handler wants_loop: cannot validate payloads as <class "),
        (
            wants_no_schema,
            f"handler wants_no_schema: cannot validate payloads as {NoSchema!r}: it is, or has in",
        ),
    ],
)
def test_an_annotation_that_cannot_be_used_is_refused_when_it_subscribes(
    process: object, text: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}"):
        handler(process)


def test_a_type_that_only_a_function_knows_cannot_be_resolved_and_is_named() -> None:
    class Local(BaseModel):
        id: int

    async def wants_local(payload: Local) -> None: ...

    with pytest.raises(
        ConfigurationError, match="wants_local: cannot resolve the annotation 'Local'"
    ):
        handler(wants_local)


def test_annotations_that_are_types_already_need_no_resolving() -> None:
    class Local(BaseModel):
        id: int

    async def wants_local(payload: Any) -> None: ...

    wants_local.__annotations__["payload"] = Local

    assert handler(wants_local).decode(b'{"id": 1}', None) == Local(id=1)


# --- bodies ---


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "Application/JSON", "application/json; charset=utf-8"],
)
def test_json_is_taken_also_when_nobody_said_so(content_type: str | None) -> None:
    assert handler(takes_payload).decode(b'{"a": 1}', content_type) == {"a": 1}


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/jsonx"])
def test_another_content_type_is_refused(content_type: str) -> None:
    text = f"^content type {content_type!r} is not application/json$"
    with pytest.raises(DecodeError, match=text):
        handler(takes_payload).decode(b"{}", content_type)


@pytest.mark.parametrize("process", [takes_payload, wants_order])
@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"NaN"])
def test_a_body_that_is_not_json_is_refused_with_or_without_annotation(
    process: object, body: bytes
) -> None:
    with pytest.raises(DecodeError, match=r"^the body is not JSON: "):
        handler(process).decode(body, None)


# --- numbers JSON does not have ---


class Reading(BaseModel):
    id: int
    note: Any = None


@dataclass
class Sample:
    value: Any


async def wants_float(payload: float) -> None: ...
async def wants_floats(payload: list[float]) -> None: ...
async def wants_integer(payload: int) -> None: ...
async def wants_text(payload: str) -> None: ...
async def wants_reading(payload: Reading) -> None: ...
async def wants_sample(payload: Sample) -> None: ...


@pytest.mark.parametrize(
    ("process", "form"),
    [
        (takes_payload, "%s"),
        (wants_float, "%s"),
        (wants_maybe, "%s"),
        (wants_dict, '{"a": %s}'),
        (wants_floats, "[1, %s]"),
        (wants_reading, '{"id": 1, "note": [%s]}'),
        (wants_reading, '{"id": 1, "unknown": %s}'),
        (wants_sample, '{"value": %s}'),
    ],
)
@pytest.mark.parametrize(
    "number",
    ["1e999", "-1e999", "1E+309", "1e0999", "1.5e400", "1" * 250 + "e99", "NaN", "-Infinity"],
)
def test_a_number_no_float_can_hold_is_refused_with_or_without_annotation(
    process: object, form: str, number: str
) -> None:
    with pytest.raises(DecodeError, match=r"^the body is not JSON: "):
        handler(process).decode((form % number).encode(), None)


@pytest.mark.parametrize(
    ("process", "body", "payload"),
    [
        (wants_float, b"1e308", 1e308),
        (wants_float, b"1e-999", 0.0),
        (wants_float, b"1." + b"1" * 400, float("1." + "1" * 400)),
        (wants_integer, b"1" * 400, int("1" * 400)),
        (wants_text, b'"1e999"', "1e999"),
        (wants_text, b'"NaN, or Infinity"', "NaN, or Infinity"),
        (wants_dict, b'{"a": "inf", "a": "1e999"}', {"a": "1e999"}),
        (takes_payload, b'{"a": "inf", "a": "1e999"}', {"a": "1e999"}),
    ],
)
def test_what_only_looks_like_such_a_number_is_taken(
    process: object, body: bytes, payload: object
) -> None:
    assert handler(process).decode(body, None) == payload


@pytest.mark.parametrize(
    "body", [b'"inf"', b'"-Infinity"', b'"NaN"', b'"1e999"', b'"\\u0069nf"', b"1" * 400]
)
@pytest.mark.parametrize(("process", "form"), [(wants_float, b"%b"), (wants_floats, b"[%b]")])
def test_nothing_else_becomes_an_infinity_on_its_way_to_a_float(
    process: object, form: bytes, body: bytes
) -> None:
    with pytest.raises(DecodeError, match=r"Input should be a finite number$"):
        handler(process).decode(form % body, None)


class Bounds(BaseModel, allow_inf_nan=True):
    upper: float


async def wants_bounds(payload: Bounds) -> None: ...


async def wants_any_float(payload: Annotated[float, Field(allow_inf_nan=True)]) -> None: ...


def test_an_annotation_may_ask_for_infinities_written_as_text() -> None:
    assert handler(wants_bounds).decode(b'{"upper": "inf"}', None) == Bounds(upper=float("inf"))
    assert handler(wants_any_float).decode(b'"inf"', None) == float("inf")
