"""The keys that `Cache.cached` makes of arguments."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit import Cluster
from cluster_kit.cache.options import check_key
from cluster_kit.cache.template import Template
from cluster_kit.errors import ConfigurationError
from cluster_kit.testing.factory import ClusterFactory


@dataclass
class Page:
    number: int
    seen: set[str] = field(default_factory=set[str], repr=False)


ID = uuid.UUID(int=5)
VALUES = st.one_of(
    st.text(),
    st.text(alphabet="12:-'%(). \nNone"),
    st.integers(),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=2),
)
TEMPLATES = ["p:{a}:{b}", "{a}{b}", "{a}1{b}", "{a}%{b}", "p{a}N{b}:", "{a}'{b}'", "{a}-{b}{{}}"]


@pytest.mark.parametrize(
    ("text", "values", "key"),
    [
        ("user:{a}", {"a": 17}, "user:17"),
        ("user:{a}", {"a": "17"}, "user:17"),
        ("user:{a}:{b}", {"a": "ada", "b": "de-AT"}, "user:ada:de-AT"),
        ("p:{a}:{b}", {"a": "1:2", "b": "3"}, "p:1%3A2:3"),
        ("p:{a}:{b}", {"a": "1", "b": "2:3"}, "p:1:2:3"),
        ("u:{a}", {"a": "http://shop/x y"}, "u:http://shop/x%20y"),
        ("u:{a}", {"a": "a*#%\x00ü"}, "u:a%2A%23%25%00ü"),
        ("u:{a}", {"a": ""}, "u:"),
        ("u:{a}", {"a": Page(2, {"x", "y"})}, "u:Page(number=2)"),
        ("u:{a}", {"a": None}, "u:None"),
        ("u:{a}", {"a": "None"}, "u:None"),
        ("u:{a}", {"a": True}, "u:True"),
        ("u:{a}", {"a": ID}, f"u:{ID}"),
        ("u:{a}", {"a": Decimal("1.50")}, "u:1.50"),
        ("{a}{b}", {"a": "x)", "b": 1}, "(x%29)1"),
        ("{a!r}-{b:03}", {"a": "x-y", "b": 7}, "'x%2Dy'-007"),
        ("{a[0]}.{b.c}", {"a": ["z"], "b": SimpleNamespace(c=1)}, "z.1"),
        ("u:{a}", {"a": "\ud800"}, "u:%ED%A0%80"),
    ],
    ids=str,
)
def test_a_key_can_be_foretold(text: str, values: dict[str, Any], key: str) -> None:
    assert Template("key", text).key(values) == key
    assert check_key(key) == key


@pytest.mark.parametrize("text", TEMPLATES)
@given(VALUES, VALUES, VALUES, VALUES)
def test_values_of_different_texts_have_different_keys(
    text: str, a: object, b: object, other_a: object, other_b: object
) -> None:
    template = Template("key", text)
    one, other = (template.key({"a": x, "b": y}) for x, y in ((a, b), (other_a, other_b)))

    same = (str(a), str(b)) == (str(other_a), str(other_b))
    assert (one == other) is same
    assert check_key(one) == one


def test_a_long_key_is_shortened_and_still_its_own() -> None:
    template = Template("key", "user:{a}")
    keys = {template.key({"a": "ж" * 500 + str(number)}) for number in range(3)}

    assert len(keys) == 3
    assert not keys & {template.key({"a": key.removeprefix("user:")}) for key in keys}
    for key in keys:
        assert check_key(key).startswith("user:ж")


def test_a_key_that_looks_shortened_is_no_other_that_was() -> None:
    template = Template("key", "u~{a}~{b}")
    long = template.key({"a": "A" * 200, "b": "b"})
    begin, digest = long.removeprefix("u~").rsplit("~", 1)

    assert template.key({"a": begin, "b": digest}) != long


class Odd:
    """Has no text of its own."""

    def method(self) -> int:
        return 1


@dataclass
class Filter:
    colours: set[str]


class Broken:
    def __str__(self) -> str:
        raise OSError("no text today")


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda read: read(5), "key 'u:{user.id}' does not fit .* no attribute 'id'"),
        (lambda read: read(SimpleNamespace(id=Odd())), "user.id is .* Odd has no text"),
        (lambda read: read(SimpleNamespace(id=Broken())), "OSError: no text today"),
    ],
)
@pytest.mark.asyncio
async def test_what_does_not_fit_a_template_is_named(
    call: Callable[[Any], Any], named: str, cluster_factory: ClusterFactory
) -> None:
    [cluster] = await cluster_factory()

    @cluster.cache.cached(key="u:{user.id}")
    async def read(user: Any) -> int:
        raise AssertionError(user)

    with pytest.raises(ConfigurationError, match=named):
        await call(read)


@pytest.mark.parametrize(
    ("text", "value", "named"),
    [
        ("o:{a}", [Odd()], "Odd has no text"),
        ("o:{a}", (1, {2: Odd()}), "Odd has no text"),
        ("o:{a}", {Odd(): 2}, "Odd has no text"),
        ("o:{a}", {"red", "green"}, "a is a set"),
        ("o:{a!r}", [1, (frozenset({1}),)], "a is a set"),
        ("o:{a.b}", SimpleNamespace(b={"x": {1}}), "a.b is a set"),
        ("o:{a}", Filter({"red", "green"}), "a.colours is a set"),
        ("o:{a!r}", [Filter({"red"})], "a.colours is a set"),
        ("o:{a}", ValueError(frozenset({1, 2})), "a has a set"),
        ("o:{a!r}", Odd(), "Odd has no text"),
        ("o:{a!s:>90}", Odd(), "Odd has no text"),
        ("o:{a.args}", functools.partial(int, Odd()), "a.args is .* Odd has no text"),
        ("o:{a}", functools.partial(lambda: 1), "partial has no text"),
        ("o:{a}", lambda: 1, "a is a function, <function <lambda> at"),
        ("o:{a}", Odd().method, "a is a function"),
        ("o:{a}", math.sin, "a is a function"),  # one of cmath has the same text
    ],
)
def test_a_text_that_is_another_in_each_process_is_no_key(
    text: str, value: object, named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Template("key", text).key({"a": value})


@pytest.mark.parametrize(
    "value",
    [
        "<x at 0x7f>",
        ["<x at 0x7f>"],
        ("a", ["<x at 0x7f>"]),
        {"a": "<x at 0x7f>"},
        {b"<x at 0x7f>": 1},
        b"<x at 0x7f>",
        bytearray(b"<x at 0x7f>"),
    ],
)
def test_a_text_may_look_like_a_place_in_memory(value: object) -> None:
    assert "0x7f" in Template("key", "o:{a}").key({"a": value})


@pytest.mark.asyncio
async def test_a_tag_that_does_not_fit_is_named_and_a_key_may_be_a_function(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()

    @cluster.cache.cached(key=lambda user: f"u-{user}", tags=["{user.id}"])
    async def read(user: object) -> int:
        return 1

    with pytest.raises(ConfigurationError, match=r"tags '{user.id}' does not fit"):
        await read(5)
    assert await read(SimpleNamespace(id="x")) == 1
    assert await cluster.cache.get("u-namespace(id='x')") == 1


@pytest.mark.asyncio
async def test_names_that_a_function_takes_as_they_come_have_one_order(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()

    @cluster.cache.cached(key="p:{page}:{filters}")
    async def search(page: int, **filters: int) -> list[str]:
        return list(filters)

    assert await search(1, b=2, a=1) == ["b", "a"]
    assert await search(a=1, b=2, page=1) == ["b", "a"]
    assert search.key(1, b=2, a=1) == "p:1:{'a':%201,%20'b':%202}"


@pytest.mark.asyncio
async def test_what_a_call_has_kept_is_invalidated_by_its_arguments(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    calls: list[tuple[str, str]] = []

    @cluster.cache.cached(key="rate:{currency}:{bank}")
    async def rate_of(currency: str, bank: str = "ecb") -> int:
        """Ask a bank."""
        calls.append((currency, bank))
        return len(calls)

    assert [await rate_of("usd"), await rate_of("chf")] == [1, 2]
    assert rate_of.key("usd") == rate_of.key(bank="ecb", currency="usd") == "rate:usd:ecb"
    assert await cluster.cache.get(rate_of.key("chf")) == 2
    assert await rate_of.invalidate(currency="usd")
    assert not await rate_of.invalidate("usd")
    assert [await rate_of("usd"), await rate_of("chf")] == [3, 2]
    assert inspect.iscoroutinefunction(rate_of)
    assert rate_of.__doc__ == "Ask a bank."
    with pytest.raises(TypeError):
        await rate_of.invalidate("usd", "ecb", "more")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="currency is a function"):
        rate_of.key(print)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_methods_and_keys_made_by_functions_know_their_calls_too(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    cache = cluster.cache

    class Bank:
        name = "ecb"
        asked = 0

        @cache.cached(key="rate:{self.name}:{currency}")
        async def rate_of(self, currency: str) -> str:
            self.asked += 1
            return f"{currency} {self.asked}"

        @cache.cached(key=lambda bank, currency: f"{bank.name}-{currency}")
        async def price_of(self, currency: str) -> str:
            return currency

    bank = Bank()
    assert [await bank.rate_of("usd") for _ in range(2)] == ["usd 1"] * 2
    assert bank.rate_of.key("usd") == Bank.rate_of.key(bank, "usd") == "rate:ecb:usd"
    assert await bank.rate_of.invalidate(currency="usd")
    assert await bank.rate_of("usd") == "usd 2"
    assert await Bank.rate_of.invalidate(bank, "usd")
    assert await bank.price_of("usd") == "usd"
    assert bank.price_of.key(currency="usd") == "ecb-usd"
    assert await bank.price_of.invalidate("usd")


@pytest.mark.asyncio
async def test_class_methods_and_static_methods_know_their_calls(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    cached = cluster.cache.cached

    class Bank:
        @cached(key="{cls.__name__}:{currency}")
        @classmethod
        async def rate_of(cls, currency: str = "usd") -> str:
            return f"{cls.__name__} {currency}"

        @cached(key="fee:{currency}")
        @staticmethod
        async def fee_of(currency: str) -> str:
            return currency

        @staticmethod
        @cached(key="tax:{currency}")
        async def tax_of(currency: str) -> str:
            return currency

    class Branch(Bank): ...

    for bank, name in ((Bank, "Bank"), (Branch, "Branch")):
        assert await bank.rate_of("eur") == await bank().rate_of("eur") == f"{name} eur"
        assert bank.rate_of.key("eur") == bank().rate_of.key("eur") == f"{name}:eur"
        assert await bank().rate_of.invalidate("eur")
    plain: list[Any] = [Bank.fee_of, Branch().fee_of, Bank.tax_of, Bank().tax_of]
    for function in plain:
        assert await function("eur") == "eur"
        assert await function.invalidate("eur")
    assert [function.key("eur") for function in plain] == ["fee:eur"] * 2 + ["tax:eur"] * 2


def test_a_class_method_is_made_before_it_is_cached() -> None:
    cached = Cluster("shop").cache.cached
    with pytest.raises(
        ConfigurationError, match=r"Bank.rate_of: cached\(\) goes above @classmethod"
    ):

        class Bank:
            @classmethod
            @cached(key="{currency}")
            async def rate_of(cls, currency: str = "usd") -> str:
                return currency


class Teller:
    """Keeps what it says."""

    def __init__(self, name: str) -> None:
        self.name = name

    @Cluster("shop").cache.cached(key="{self.name}:{word}")
    async def say(self, word: str) -> str:
        """Say it."""
        return word


def test_decorated_functions_are_to_others_what_they_were() -> None:
    teller = Teller("ada")
    for said, taken in ((Teller.say, ["self", "word"]), (teller.say, ["word"])):
        assert inspect.iscoroutinefunction(said)
        assert list(inspect.signature(said).parameters) == taken
        assert (said.__name__, said.__qualname__, said.__doc__) == ("say", "Teller.say", "Say it.")
        assert said.__module__ == __name__
    assert teller.say == teller.say
    assert len({teller.say, teller.say, Teller("bob").say}) == 2
    assert copy.copy(teller.say) == teller.say
    assert copy.deepcopy(Teller.say) is Teller.say
