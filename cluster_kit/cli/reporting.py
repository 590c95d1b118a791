"""How a command fails: one line on standard error, no traceback."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import typer

from cluster_kit.errors import ClusterKitError

FAILED = 1
WRONG_USE = 2


@contextmanager
def reporting() -> Generator[None]:
    """Turn an error of the library into a line on standard error and exit code 1."""
    try:
        yield
    except ClusterKitError as exc:
        fail(str(exc))


def say(message: str) -> None:
    """Tell the user something that is no data."""
    typer.echo(f"cluster-kit: {message}", err=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what is wrong and exit."""
    say(message)
    raise typer.Exit(code)
