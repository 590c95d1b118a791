"""What a provider of RabbitMQ nodes gives."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

CTL_SECONDS = 60.0
"""Longest run of one rabbitmqctl command."""


class NodeUnavailableError(Exception):
    """A provider has no node. `final` forbids to try the next provider."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        self.final = final
        super().__init__(reason)


class NodeCommandError(Exception):
    """A rabbitmqctl command failed."""


class Node(Protocol):
    """A RabbitMQ node and what can be done to it. All methods block."""

    @property
    def url(self) -> str:
        """Address of its default virtual host, with user and password."""
        ...

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        ...

    @property
    def has_ctl(self) -> bool:
        """Whether `ctl` works."""
        ...

    @property
    def can_control(self) -> bool:
        """Whether it is ours to stop and start."""
        ...

    @property
    def ctl_command(self) -> Sequence[str]:
        """Command line with which any process of this machine runs rabbitmqctl; may be empty."""
        ...

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl and return what it printed, or raise `NodeCommandError`."""
        ...

    def stop(self, *, kill: bool = False) -> None:
        """Stop it, or with `kill` end it without warning. What it has stored stays."""
        ...

    def start(self) -> None:
        """Start it again on the same ports; return when it answers."""
        ...

    def close(self) -> None:
        """Stop it for good and leave nothing behind. Idempotent."""
        ...


Provider = Callable[[], Node]
"""Returns a running node or raises `NodeUnavailableError`."""


def run_ctl(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """Run a rabbitmqctl command line and return its standard output.

    Raises:
        NodeCommandError: it failed or took too long.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the command line is ours
            command,
            stdin=subprocess.DEVNULL,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=CTL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NodeCommandError(f"{' '.join(command)}: {exc}") from exc
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise NodeCommandError(f"{' '.join(command)} ended with {done.returncode}: {said}")
    return done.stdout
