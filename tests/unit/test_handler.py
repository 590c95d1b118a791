from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from cluster_kit.broadcast import Event
from cluster_kit.errors import ConfigurationError
from cluster_kit.message import Delivery
from cluster_kit.signature import About
from tests.unit.handlers import (
    DELIVERY,
    Mailer,
    handler,
    hidden,
    run,
    seen,
    sync_payload,
    takes_a_default,
    takes_an_optional_delivery,
    takes_an_optional_keyword,
    takes_anything,
    takes_both,
    takes_both_and_a_default,
    takes_payload,
    takes_payload_and_more,
    takes_positional_only,
    takes_three,
    traced,
)

if TYPE_CHECKING:
    from cluster_kit.message import Delivery as OnlyForTypeCheckers


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("process", "arguments"),
    [
        (takes_payload, ("payload",)),
        (takes_both, ("payload", DELIVERY)),
        (takes_anything, ("payload", DELIVERY)),
        (takes_payload_and_more, ("payload", DELIVERY)),
        (takes_a_default, ("payload", False)),
        (takes_an_optional_delivery, ("payload", DELIVERY)),
        (takes_both_and_a_default, ("payload", DELIVERY, False)),
        (takes_positional_only, ("payload", DELIVERY)),
        (takes_an_optional_keyword, ("payload", False)),
        (functools.partial(takes_three, "shop"), ("shop", "payload", DELIVERY)),
        (functools.partial(functools.partial(takes_three), "shop"), ("shop", "payload", DELIVERY)),
        (functools.partial(takes_a_default, verbose=True), ("payload", True)),
        (sync_payload, ("payload",)),
        (functools.partial(sync_payload), ("payload",)),
        (Mailer().send, ("payload", DELIVERY)),
        (Mailer(), ("payload",)),
        (Mailer.static, ("payload",)),
        (Mailer.of_class, (Mailer, "payload")),
        (lambda payload: takes_a_default(payload, verbose=True), ("payload", True)),
        (lambda payload, delivery: takes_both(payload, delivery=delivery), ("payload", DELIVERY)),
        (hidden(takes_both), ("payload", DELIVERY)),
    ],
    ids=lambda value: "" if isinstance(value, tuple) else getattr(value, "__name__", None),
)
async def test_a_handler_gets_what_its_signature_asks_for(
    process: object, arguments: tuple[object, ...]
) -> None:
    assert await run(process) == [arguments]


@pytest.mark.asyncio
async def test_a_decorated_handler_gets_what_the_wrapped_function_asks_for() -> None:
    assert await run(traced(takes_both)) == [("traced",), ("payload", DELIVERY)]


@pytest.mark.asyncio
async def test_async_handlers_run_on_the_event_loop_and_sync_ones_in_a_thread() -> None:
    threads: list[threading.Thread] = []

    async def asynchronous(_payload: object) -> None:
        threads.append(threading.current_thread())

    def synchronous(_payload: object) -> None:
        threads.append(threading.current_thread())

    await run(asynchronous)
    await run(synchronous)

    assert threads[0] is threading.current_thread()
    assert threads[1].name == "mails:1"


@pytest.mark.asyncio
async def test_errors_of_a_handler_pass_unchanged() -> None:
    error = LookupError("no such shelf")

    async def asynchronous(_payload: object) -> None:
        raise error

    def synchronous(_payload: object) -> None:
        raise error

    for process in (asynchronous, synchronous, hidden(asynchronous)):
        with pytest.raises(LookupError) as caught:
            await run(process)
        assert caught.value is error


# --- what is refused ---


def nothing() -> None: ...
def keywords_only(*, payload: Any) -> None: ...
def any_keywords(**payload: Any) -> None: ...
def three(payload: Any, delivery: Any, third: Any) -> None: ...
def demands_a_keyword(payload: Any, *, verbose: bool) -> None: ...
def generates(payload: Any) -> Any:
    yield payload


async def generates_later(payload: Any) -> Any:
    yield payload


SIGNATURE = "must take (payload) or (payload, delivery)"
GENERATOR = "is a generator, which would never run; return or await instead"


@pytest.mark.parametrize(
    ("process", "text"),
    [
        (nothing, f"handler nothing {SIGNATURE}"),
        (keywords_only, f"handler keywords_only {SIGNATURE}"),
        (any_keywords, f"handler any_keywords {SIGNATURE}"),
        (three, f"handler three {SIGNATURE}"),
        (demands_a_keyword, f"handler demands_a_keyword {SIGNATURE}"),
        (generates, f"handler generates {GENERATOR}"),
        (generates_later, f"handler generates_later {GENERATOR}"),
        (None, "a handler is a function, not NoneType"),
        ("mails", "a handler is a function, not str"),
        (max, "handler max has no readable signature: "),
    ],
)
def test_what_cannot_be_called_is_refused_when_it_subscribes(process: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}"):
        handler(process)


def test_a_partial_of_a_generator_is_refused_too() -> None:
    with pytest.raises(ConfigurationError, match=re.escape(GENERATOR)):
        handler(functools.partial(generates))


def test_names_are_what_logs_show() -> None:
    assert handler(takes_both).name == "takes_both"
    assert handler(Mailer().send).name == "Mailer.send"
    assert handler(traced(takes_both)).name == "takes_both"
    assert "takes_three" in handler(functools.partial(takes_three, "shop")).name


def test_a_delivery_in_the_place_of_the_payload_is_refused() -> None:
    async def handle(delivery: Delivery, payload: object) -> None: ...

    with pytest.raises(ConfigurationError, match="the payload comes first, the delivery second"):
        handler(handle)


async def typed(payload: object, about: Delivery) -> None: ...
async def optional(payload: object, about: Delivery | None = None) -> None:
    seen.append((payload, about))


async def annotated(payload: object, about: Annotated[Delivery, "what it is"]) -> None: ...
async def protocol(payload: object, about: About) -> None: ...
async def unknown(payload: object, about: OnlyForTypeCheckers) -> None: ...
async def not_given(payload: object, session: str = "mine") -> None:
    seen.append((payload, session))


@pytest.mark.parametrize("process", [typed, optional, annotated, protocol, unknown])
def test_a_second_parameter_that_may_be_a_delivery_is_given_it(process: object) -> None:
    assert handler(process).needs_delivery


@pytest.mark.asyncio
async def test_what_says_delivery_is_given_it_whatever_its_name_and_default() -> None:
    assert await run(optional) == [("payload", DELIVERY)]
    seen.clear()
    assert await run(not_given) == [("payload", "mine")]


async def wants_a_session(payload: object, session: str) -> None: ...
async def wants_an_event(payload: object, event: Event) -> None: ...
async def wants_a_list(payload: object, session: list[str] | None) -> None: ...
def evaluated(payload: object, session: object) -> None: ...


evaluated.__annotations__["session"] = str  # as without `from __future__ import annotations`


async def misnamed(payload: object, delivery: str = "") -> None: ...


@pytest.mark.parametrize(
    ("process", "parameter", "annotation"),
    [
        (wants_a_session, "session", "str"),
        (wants_an_event, "event", "Event"),
        (wants_a_list, "session", "list[str] | None"),
        (misnamed, "delivery", "str"),
        (evaluated, "session", "str"),
    ],
)
def test_a_second_parameter_that_cannot_be_a_delivery_is_refused(
    process: Callable[..., object], parameter: str, annotation: str
) -> None:
    text = (
        f"handler {process.__qualname__} is given a Delivery as {parameter}, "
        f"which is annotated with {annotation}"
    )
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        handler(process)


async def by_name(payload: object, *, delivery: object = None) -> None:
    seen.append((payload, delivery))


async def by_type(payload: object, *, about: Delivery | None = None) -> None: ...


@pytest.mark.parametrize(("process", "name"), [(by_name, "delivery"), (by_type, "about")])
def test_a_delivery_by_keyword_only_is_refused(process: Callable[..., object], name: str) -> None:
    text = f"{name} can be passed by keyword only, but the Delivery comes second"
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        handler(process)


@pytest.mark.asyncio
async def test_a_keyword_that_a_partial_has_filled_in_is_no_mistake() -> None:
    assert await run(functools.partial(by_name, delivery="mine")) == [("payload", "mine")]
