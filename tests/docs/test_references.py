"""Tables of the documents against the code they speak of."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from cluster_kit import errors
from cluster_kit.settings import Settings
from cluster_kit.settings.variables import paths, variable
from cluster_kit.telemetry import EVENTS
from tests.docs.documents import ROOT, parse

ROW = re.compile(r"^\| (?P<cells>.*) \|$", re.MULTILINE)
VARIABLE = re.compile(r"`(CLUSTER_KIT_[A-Z_]+)`")
SERVICES = {"event_queue", "pubsub", "locks"}  # folders whose modules the architecture names, too
UNUSED = {"memcached_url", "cache"}  # of capabilities yet to come


def rows(document: str) -> list[list[str]]:
    text = (ROOT / document).read_text()
    return [[cell.strip() for cell in match["cells"].split(" | ")] for match in ROW.finditer(text)]


def settings_table(document: str) -> dict[str, str]:
    """Variable to default, of each row that begins with a variable."""
    found = [(VARIABLE.fullmatch(row[0]), row) for row in rows(document)]
    table = [(match[1], row[1]) for match, row in found if match]
    assert len(table) == len(dict(table)), "a variable stands there twice"
    return dict(table)


def shown_default(path: tuple[str, ...]) -> str:
    value: object = Settings.model_construct()
    for name in path:
        value = getattr(value, name)
    if value is None:
        return "none"
    return (
        "empty" if value in ("", ()) else f"{value:g}" if isinstance(value, float) else str(value)
    )


@pytest.mark.parametrize(
    ("document", "left_out"), [("docs/reference/settings.md", set[str]()), ("README.md", UNUSED)]
)
def test_settings_are_as_in_the_code(document: str, left_out: set[str]) -> None:
    known = [path for path in paths(Settings) if path[0] not in left_out]

    assert settings_table(document) == {variable(path): shown_default(path) for path in known}


def test_errors_are_as_in_the_code() -> None:
    document = (ROOT / "docs/reference/errors.md").read_text()
    drawn = parse(document, "errors.md")[0].code

    tree = inspect.cleandoc(errors.__doc__ or "").split("::\n\n")[1]
    assert tree.startswith("".join(f"    {line}\n" for line in drawn.splitlines()))
    assert error_names(drawn) == {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }


def error_names(tree: str) -> set[str]:
    return {line.lstrip("│├└─ ").split()[0] for line in tree.splitlines()}


def test_telemetry_events_are_as_in_the_code() -> None:
    table = {
        row[0].strip("`"): tuple(re.findall(r"`(\w+)`", row[1]))
        for row in rows("docs/how-to/operate.md")
        if re.fullmatch(r"`\w+\.\w+`", row[0])
    }

    assert table == dict(EVENTS)


def test_the_modules_of_the_architecture_are_those_there_are() -> None:
    named: set[str] = set()
    for row in rows("docs/architecture.md"):
        if all(re.fullmatch(r"`[a-z_]+/?`", name) for name in row[0].split(", ")):
            named |= set(re.findall(r"[a-z_]+", row[0]))
    named -= SERVICES

    assert named == modules(ROOT / "cluster_kit").union(
        *(modules(ROOT / "cluster_kit" / service) for service in SERVICES)
    )


def modules(folder: Path) -> set[str]:
    inner = {path.stem for path in folder.glob("[a-z]*.py")}
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    return (inner | folders) - SERVICES
