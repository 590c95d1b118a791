"""How a command fails: one line on standard error, no traceback."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import typer

from cluster_kit.errors import ClusterKitError, ConfigurationError, ConnectError, TopologyError

FAILED = 1
WRONG_USE = 2


@contextmanager
def reporting() -> Generator[None]:
    """Turn an error of the library into a line on standard error and an exit code."""
    try:
        yield
    except ClusterKitError as exc:
        fail(str(exc), WRONG_USE if is_wrong_use(exc) else FAILED)


def is_wrong_use(error: ClusterKitError) -> bool:
    """Whether it is said here or in the settings, and not at the broker, what is wrong."""
    return isinstance(error, ConfigurationError) and not isinstance(error, TopologyError)


def is_final(error: ClusterKitError) -> bool:
    """Whether the next start would fail alike, as far as anybody can tell."""
    return is_wrong_use(error) or (
        isinstance(error, ConnectError | TopologyError) and not error.retryable
    )


def say(message: str) -> None:
    """Tell the user something that is no data."""
    typer.echo(f"cluster-kit: {message}", err=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what is wrong and exit."""
    say(message)
    raise typer.Exit(code)
