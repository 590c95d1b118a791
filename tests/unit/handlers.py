"""Handlers of every shape."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from cluster_kit.codec import JsonCodec
from cluster_kit.handler import Handler, conclude
from cluster_kit.message import AbortSignal, Delivery
from cluster_kit.supervisor import Supervisor

P = ParamSpec("P")
R = TypeVar("R")
DELIVERY = Delivery(
    id="1",
    channel="mails",
    attempt=1,
    max_retries=3,
    published_at=None,
    deadline=datetime(2030, 1, 1, tzinfo=UTC),
    headers={},
    redelivered=False,
    signal=AbortSignal(),
)
seen: list[tuple[object, ...]] = []


def handler(process: object) -> Handler:
    return Handler(process, JsonCodec())  # type: ignore[arg-type]


async def run(process: object, payload: object = "payload") -> list[tuple[object, ...]]:
    """Call a handler as services do."""
    call = handler(process).bind(payload, DELIVERY, Supervisor())
    await conclude(await call())
    return seen


async def takes_payload(payload: Any) -> None:
    seen.append((payload,))


async def takes_both(payload: Any, delivery: Any) -> None:
    seen.append((payload, delivery))


async def takes_anything(*args: Any) -> None:
    seen.append(args)


async def takes_payload_and_more(payload: Any, *rest: Any) -> None:
    seen.append((payload, *rest))


async def takes_a_default(payload: Any, verbose: bool = False) -> None:
    seen.append((payload, verbose))


async def takes_an_optional_delivery(payload: Any, delivery: Any = None) -> None:
    seen.append((payload, delivery))


async def takes_both_and_a_default(payload: Any, delivery: Any, verbose: bool = False) -> None:
    seen.append((payload, delivery, verbose))


async def takes_positional_only(payload: Any, delivery: Any, /) -> None:
    seen.append((payload, delivery))


async def takes_an_optional_keyword(payload: Any, *, verbose: bool = False, **rest: Any) -> None:
    seen.append((payload, verbose, *rest))


async def takes_three(shop: str, payload: Any, delivery: Any) -> None:
    seen.append((shop, payload, delivery))


def sync_payload(payload: Any) -> None:
    seen.append((payload,))


class Mailer:
    async def send(self, payload: Any, delivery: Any) -> None:
        seen.append((payload, delivery))

    async def __call__(self, payload: Any) -> None:
        seen.append((payload,))

    @staticmethod
    async def static(payload: Any) -> None:
        seen.append((payload,))

    @classmethod
    async def of_class(cls, payload: Any) -> None:
        seen.append((cls, payload))


def traced(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        seen.append(("traced",))
        return await function(*args, **kwargs)

    return wrapper


def hidden(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """A sync wrapper that gives back the coroutine."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        return function(*args, **kwargs)

    return wrapper
