"""Tables for people, JSON for programs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNLIMITED = 100_000
"""Columns of a line that goes into a pipe: nothing is folded or cut there."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; only `fold` ones give way in a narrow terminal."""

    title: str
    justify: Literal["left", "right"] = "left"
    fold: bool = False
    style: str = ""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to standard output: as wide as the terminal, or in a pipe, a line a row."""
    terminal = sys.stdout.isatty()
    table = Table(box=SIMPLE_HEAD if terminal else None, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(
            column.title,
            justify=column.justify,
            no_wrap=not column.fold,
            overflow="fold",
            style=column.style,
        )
    for row in rows:
        table.add_row(*(Text(_cell(value, one_line=not terminal)) for value in row))
    if terminal:
        Console().print(table)
        return
    console = Console(width=UNLIMITED, color_system=None)
    with console.capture() as capture:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def print_json(value: object) -> None:
    """Print a JSON document to standard output."""
    typer.echo(json.dumps(value, indent=2, default=_plain))


def one_line_json(value: object) -> str:
    """Return a JSON text without line breaks."""
    return json.dumps(value, default=_plain)


def visible(text: str) -> str:
    r"""Return `text` with control characters escaped: foreign ones must not steer a terminal.

    >>> print(visible("red \x1b[31m"))
    red \x1b[31m
    """
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _plain(value: object) -> object:
    """Return a JSON form of what a foreign header may hold."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return {"base64": base64.b64encode(value).decode()}
    return str(value)


def _cell(value: object, *, one_line: bool) -> str:
    text = "" if value is None else str(value)
    return visible(" ".join(text.split()) if one_line else text)
