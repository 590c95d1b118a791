"""Arguments and options that several commands share, checked before anything is connected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from cluster_kit.cli.reporting import WRONG_USE, fail
from cluster_kit.clock import MAX_WAIT, seconds
from cluster_kit.errors import ConfigurationError
from cluster_kit.names import check_app, check_channel, check_message_id

T = TypeVar("T")


def _checked(check: Callable[[T], object], value: T | None, where: str = "") -> T | None:
    """Return `value` when `check` accepts it; a refusal is wrong use of the command line."""
    if value is not None:
        try:
            check(value)
        except ConfigurationError as exc:
            fail(f"{where}{exc}", WRONG_USE)
    return value


def _url(value: str | None) -> str | None:
    from cluster_kit.settings import ServerUrl

    return _checked(ServerUrl, value, "--url: ")


def _demo_url(value: str | None) -> str | None:
    from cluster_kit.settings import ServerUrl

    def check(text: str) -> None:
        if (scheme := ServerUrl(text).scheme) not in {"amqp", "amqps"}:
            raise ConfigurationError(
                f"of a RabbitMQ, amqp:// or amqps://, not {scheme}://; without it all is in memory"
            )

    return _checked(check, value, "--url: ")


def _app(value: str | None) -> str | None:
    return _checked(check_app, value)


def _channel(value: str | None) -> str | None:
    return _checked(check_channel, value)


def _message_id(value: str | None) -> str | None:
    return _checked(check_message_id, value)


def _message_ids(value: list[str] | None) -> list[str] | None:
    return _checked(lambda ids: [check_message_id(id_) for id_ in ids], value)


def _seconds(name: str, *, zero: bool) -> Callable[[float | None], float | None]:
    def check(value: float | None) -> float | None:
        return _checked(lambda number: seconds(name, number, zero=zero, limit=MAX_WAIT), value)

    return check


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"cluster-kit {version('cluster-kit')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Show it and exit."),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", callback=_url, help="Of the broker. [default: the settings']"
    ),
]
DemoUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        callback=_demo_url,
        help="Of a RabbitMQ; the instances are then processes. [default: all in memory]",
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app", metavar="NAME", callback=_app, help="Application. [default: CLUSTER_KIT_APP]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Shared = Annotated[
    bool, typer.Option("--shared", help="The queue has no app prefix: applications share it.")
]
Channel = Annotated[
    str, typer.Argument(metavar="CHANNEL", callback=_channel, help="Without the app prefix.")
]
MessageId = Annotated[str, typer.Argument(metavar="ID", callback=_message_id)]
MessageIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", callback=_message_ids, help="Which. [default: all]"),
]
NewId = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="ID",
        callback=_message_id,
        help="Instead of a fresh one. An instance that runs a task of this id, or did so within "
        "five minutes, drops another.",
    ),
]
Delay = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", callback=_seconds("--delay", zero=True), help="Before the first run."
    ),
]
Ttl = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", callback=_seconds("--ttl", zero=False), help="Longest wait for a run."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        callback=_seconds("--timeout", zero=False),
        help="Longest duration of a run.",
    ),
]
MaxRetries = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Failed runs after the first before it is dead."),
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="KEY=VALUE", help="Travels with the task; repeatable."),
]
