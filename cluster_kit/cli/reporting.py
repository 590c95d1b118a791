"""How a command fails: one line on standard error, below a traceback of the application's own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from copy import copy
from typing import NoReturn

import typer

from cluster_kit.errors import (
    ClusterKitError,
    ConfigurationError,
    ConnectError,
    PluginFailedError,
    TopologyError,
)

FAILED = 1
WRONG_USE = 2

URL_SETTING = ("event_queue", "url")
"""Path of the setting that ``--url`` stands for."""


@contextmanager
def reporting() -> Generator[None]:
    """Turn an error of the library into a line on standard error and an exit code."""
    try:
        yield
    except ClusterKitError as exc:
        for note in getattr(exc, "__notes__", ()):
            typer.echo(note, err=True, nl=False)
        fail(str(exc), WRONG_USE if is_wrong_use(exc) else FAILED)


@contextmanager
def naming_url(given: str | None) -> Generator[None]:
    """Have an error about the URL that was `given` on the command line name its option."""
    from cluster_kit.settings.places import argument, variable

    try:
        yield
    except (ConfigurationError, ConnectError) as exc:
        setting = f"{argument(URL_SETTING)} ({variable(URL_SETTING)}): "
        if given is None or not str(exc).startswith(setting):
            raise
        named = copy(exc)
        named.args = (f"--url: {str(exc).removeprefix(setting)}",)
        raise named from exc.__cause__


def is_wrong_use(error: ClusterKitError) -> bool:
    """Whether it is said here or in the settings, and not at the broker, what is wrong."""
    return isinstance(error, ConfigurationError) and not isinstance(error, TopologyError)


def is_final(error: ClusterKitError) -> bool:
    """Whether the next start would fail alike, as far as anybody can tell."""
    cause = error.__cause__ if isinstance(error, PluginFailedError) else error
    return (isinstance(cause, ClusterKitError) and is_wrong_use(cause)) or (
        isinstance(cause, ConnectError | TopologyError) and not cause.retryable
    )


def say(message: str) -> None:
    """Tell the user something that is no data."""
    typer.echo(f"cluster-kit: {message}", err=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what is wrong and exit."""
    say(message)
    raise typer.Exit(code)
