"""The fenced blocks of README.md and docs/, and how they are run.

A ```python block is a program: it runs in an interpreter and a temporary folder of its own.
A ```text block right below it is what it prints. In a ```console block every line that starts
with `$ ` is a `cluster-kit` command, and the lines below it are what it prints. In expected output,
`...` stands for any text within a line, and on a line of its own for any lines. Everything has to
exit with 0.

A comment on the line above the fence changes that:

    <!-- needs: rabbitmq -->      run by integration/docs, CLUSTER_KIT_AMQP_URL is a real broker
    <!-- file: shop/main.py -->   not run, but there, under this name, for the blocks further down
    <!-- not run: the reason -->  not run; shell lines (```sh) must say so
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ("python", "console")
SHELL = ("sh", "bash", "shell", "zsh", "pycon")  # never run, and have to say so
TIMEOUT = 50.0  # seconds, per program

_FENCE = re.compile(r"^ {0,3}(?P<ticks>```+|~~~+) *(?P<language>[^\s`]*)")
_MARK = re.compile(r"^ {0,3}<!-- *(?P<kind>needs|file|not run) *:(?P<value>.*?)-->\s*$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block, and what is said about it around it."""

    document: str
    line: int
    language: str
    code: str
    kind: str = ""  # of its mark: needs, file, not run
    value: str = ""
    output: str | None = None  # the text block right below
    files: dict[str, str] = field(default_factory=dict)  # the file: blocks above, by name

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.kind in {"", "needs"}

    def problems(self) -> list[str]:
        """What is wrong with the way it is written."""
        needs = self.kind == "needs"
        told = {
            "names no language": not self.language,
            "is shell: mark it as not run, or make it console": self.language in SHELL
            and not self.kind,
            "has an empty mark": bool(self.kind) and not self.value,
            "needs something other than rabbitmq": needs and self.value != "rabbitmq",
            "needs a server, but is never run": needs and self.language not in RUN,
            "has neither a cluster-kit command nor its output": self._foreign_command(),
        }
        return [f"{self} {problem}" for problem, found in told.items() if found]

    def _foreign_command(self) -> bool:
        if not self.runs or self.language != "console":
            return False
        commands = [line for line in self.code.splitlines() if line.startswith("$ ")]
        known = all(line.startswith("$ cluster-kit ") for line in commands)
        return not (known and self.code.startswith("$ "))


def documents() -> list[Path]:
    """Every document whose blocks are run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def all_blocks() -> list[Block]:
    """Every block of every document, in order."""
    return [
        block
        for path in documents()
        for block in parse(path.read_text(), str(path.relative_to(ROOT)))
    ]


def parse(text: str, document: str) -> list[Block]:
    """The blocks of one document, in order."""
    blocks: list[Block] = []
    files: dict[str, str] = {}
    lines = text.splitlines()
    above = 0  # where the previous block ended
    for start, end, language in _fences(lines):
        code = "".join(f"{line}\n" for line in lines[start + 1 : end])
        mark = _MARK.match(lines[start - 1]) if start else None
        if blocks and language == "text" and not "".join(lines[above:start]).strip():
            blocks[-1] = replace(blocks[-1], output=code)
        block = Block(
            document=document,
            line=start + 1,
            language=language,
            code=code,
            kind=mark["kind"] if mark else "",
            value=mark["value"].strip() if mark else "",
            files=dict(files),
        )
        if block.kind == "file":
            files[block.value] = code
        blocks.append(block)
        above = end + 1
    return blocks


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    lines = text.splitlines()
    for start, end, _ in list(_fences(lines)):
        lines[start : end + 1] = [""] * (end + 1 - start)
    return "\n".join(lines)


def _fences(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """First line, last line and language of each block."""
    at = 0
    while at < len(lines):
        if fence := _FENCE.match(lines[at]):
            start, at = at, _closing(lines, at, fence["ticks"])
            yield start, at, fence["language"]
        at += 1


def _closing(lines: list[str], start: int, ticks: str) -> int:
    for at in range(start + 1, len(lines)):
        if lines[at].strip() == ticks:
            return at
    raise AssertionError(f"the block that starts at line {start + 1} has no end: {lines[start]}")


def run(block: Block, folder: Path, **environment: str) -> None:
    """Run a block in a folder, and fail unless it prints what the document says."""
    for name, content in block.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for command, expected in _programs(block, folder):
        status, output, errors = _execute(command, folder, _environment(folder, environment))
        shown = f"{block}: {shlex.join(command)}\n{output}{errors}"
        assert status == 0, f"exit status {status} of {shown}"
        assert "ResourceWarning" not in errors, f"something was left open by {shown}"
        assert expected is None or _same(expected, output), f"wanted:\n{expected}\ngot from {shown}"


def _execute(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """The exit status of a program, and what it wrote: where it stands, if it takes too long."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
    ) as program:
        try:
            output, errors = program.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGABRT)  # faulthandler writes the stacks of its threads
            output, errors = program.communicate()
    return program.returncode, output, errors


def _programs(block: Block, folder: Path) -> list[tuple[list[str], str | None]]:
    """The commands of a block, each with what it should print."""
    if block.language == "python":
        program = folder / "program.py"
        program.write_text(block.code)
        return [([sys.executable, program.name], block.output)]
    parts = re.split(r"^\$ (.*)\n", block.code, flags=re.MULTILINE)[1:]
    return [
        (shlex.split(command), output)
        for command, output in zip(parts[::2], parts[1::2], strict=True)
    ]


def _environment(folder: Path, extra: dict[str, str]) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("CLUSTER_KIT_")
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    plain = {
        "PATH": path,
        "PYTHONPATH": str(folder),
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "default::ResourceWarning",  # sockets and files that were left open
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "PYTEST_ADDOPTS": "-p no:hypothesispytest",  # takes most of a second, and no block needs it
    }
    return {**kept, **plain, **extra}


def _same(expected: str, got: str) -> bool:
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "..." else r".*".join(map(re.escape, line.split("...")))
        for line in expected.splitlines(keepends=True)
    )
    return re.fullmatch(pattern, got) is not None
