from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cluster_kit.cli.output import Column, one_line_json, print_json, print_table, visible

COLUMNS = (Column("name"), Column("number", "right"), Column("text", fold=True))
ROWS = [("first", 1, "a b\nc"), ("a-very-long-name" * 10, None, "words " * 50)]


def test_a_pipe_gets_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, ROWS)

    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["name", "number", "text"],
        ["first", "1", "a", "b", "c"],
    ]
    assert lines[2].startswith("a-very-long-name" * 10)
    assert lines[2].endswith("words words")
    assert len(lines) == 3


def test_a_terminal_gets_its_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")

    print_table(COLUMNS, [("first", 1, "words " * 50)])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert max(len(line) for line in lines) <= 80


def test_json_of_what_foreign_headers_may_hold(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"at": datetime(2026, 1, 2, tzinfo=UTC), "raw": b"\xff", "odd": {1}, "text": "\ud800"}

    print_json(value)

    expected = {
        "at": "2026-01-02T00:00:00+00:00",
        "raw": {"base64": "/w=="},
        "odd": "{1}",
        "text": "\ud800",
    }
    assert json.loads(capsys.readouterr().out) == expected
    assert json.loads(one_line_json(value)) == expected
    assert "\n" not in one_line_json(["a\nb"])


def test_control_characters_are_shown_not_sent() -> None:
    assert visible("ä\tb\nc") == "ä\tb\nc"
    assert visible("\x1b]0;x\x07\x9b\ud800") == "\\x1b]0;x\\x07\\x9b\\ud800"
