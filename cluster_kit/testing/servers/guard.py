"""Keeps programs running as long as its parent lives: a program of its own.

A test run may end in any way, also by SIGKILL, and only another process can clean up then. The
parent holds the other end of standard input. ``stop`` or ``kill`` on it ends the programs;
``close``, or its end because the parent is gone, also removes the folder.

Started by `cluster_kit.testing.servers.local` in the environment of the programs, with one
argument, a JSON object: ``commands`` (each a list, the last one is what it is all about) and
``folder``. An environment may hold secrets, which arguments would show to everybody.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 30.0


def _run(commands: list[list[str]], folder: Path) -> str:
    """Run all; return what the parent said, or ``ended`` when the last program ended by itself."""
    running: list[subprocess.Popen[bytes]] = []
    order = "stop"
    try:
        with (folder / "console.log").open("ab") as console:
            for command in commands:
                program = subprocess.Popen(  # noqa: S603 - the parent's choice
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                running.append(program)
        order = _wait(running[-1])
    finally:
        for program in reversed(running):
            _end(program, kill=order == "kill")
    return order


def _wait(program: subprocess.Popen[bytes]) -> str:
    while program.poll() is None:
        ready, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
        if ready:
            return sys.stdin.readline().strip() or "close"
    return "ended"


def _end(program: subprocess.Popen[bytes], *, kill: bool) -> None:
    if not kill:
        program.terminate()
        try:
            program.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            kill = True
    if kill:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _stay(_number: int, _frame: FrameType | None) -> None:
    """Take no notice of a signal."""


def main() -> None:
    """Run what the argument says."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only the parent decides when to end. Not SIG_IGN: the programs would inherit that.
        signal.signal(number, _stay)
    order = json.loads(sys.argv[1])
    folder = Path(order["folder"])
    if _run(order["commands"], folder) == "close":
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
