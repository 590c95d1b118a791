"""Servers that are one program with one port: Redis and memcached."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from cluster_kit.clock import SystemClock
from cluster_kit.testing.servers.local import GUARD, free_ports
from cluster_kit.testing.servers.node import NodeCommandError, NodeUnavailableError
from cluster_kit.urls import redact_url

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

_START_SECONDS = 60.0
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What one sort of server needs.

    Attributes:
        name: for people, and of its URL's scheme.
        variable: of the environment that names one to use.
        program: looked for on this machine.
        arguments: of the program, from port and folder; the folder is empty at the first start.
        image: of its container.
        port: on which it listens by default.
        question: bytes that make it answer.
        answer: how its answer begins.
        environment: of its container.
        command: words that its container runs; the image's own when there are none.
    """

    name: str
    variable: str
    program: str
    arguments: Callable[[int, Path], Sequence[str]]
    image: str
    port: int
    question: bytes
    answer: tuple[bytes, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    command: Sequence[str] = ()

    def answers(self, url: str) -> bool:
        """Whether a server of this kind answers at `url`."""
        parts = urlsplit(url)
        address = (parts.hostname or "localhost", parts.port or self.port)
        try:
            with socket.create_connection(address, _ANSWER_SECONDS) as link:
                link.sendall(self.question)
                return link.recv(64).startswith(self.answer)
        except OSError:
            return False

    def await_answer(self, url: str, running: Callable[[], bool] = lambda: True) -> None:
        """Wait for the server's first answer; raise `NodeUnavailableError` if there is none."""
        clock = SystemClock()
        end = clock.monotonic() + _START_SECONDS
        while clock.monotonic() < end and running():
            if self.answers(url):
                return
            sleep(0.02)
        raise NodeUnavailableError(f"{self.name} did not start at {redact_url(url)}", final=True)


REDIS = Kind(
    name="redis",
    variable="CLUSTER_KIT_TEST_REDIS_URL",
    program="redis-server",
    arguments=lambda port, folder: [
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""),
        *("--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"),
    ],
    image="redis:7.4.5-alpine",
    port=6379,
    question=b"PING\r\n",
    answer=(b"+PONG", b"-NOAUTH", b"-DENIED"),
)
MEMCACHED = Kind(
    name="memcached",
    variable="CLUSTER_KIT_TEST_MEMCACHED_URL",
    program="memcached",
    arguments=lambda port, _: ["-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", _user()],
    image="memcached:1.6.39-alpine",
    port=11211,
    question=b"version\r\n",
    answer=(b"VERSION",),
)


class PlainServer(Protocol):
    """A server and what can be done to it. All methods block."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        ...

    @property
    def can_control(self) -> bool:
        """Whether it is ours to stop and start."""
        ...

    def stop(self, *, kill: bool = False) -> None:
        """Stop it, or with `kill` end it without warning."""
        ...

    def start(self, *, empty: bool = False) -> None:
        """Start it again on the same port, with what it has stored, or `empty`."""
        ...

    def close(self) -> None:
        """Stop it for good and leave nothing behind. Idempotent."""
        ...


class GivenServer:
    """Named in the environment: not ours to stop."""

    can_control = False

    def __init__(self, kind: Kind) -> None:
        self.url = os.environ.get(kind.variable, "")
        if not self.url:
            raise NodeUnavailableError(f"{kind.variable} is not set")
        self.origin = f"{kind.variable}={redact_url(self.url)}"
        if not kind.answers(self.url):
            raise NodeUnavailableError(f"{self.origin}: nobody answers there", final=True)

    def stop(self, *, kill: bool = False) -> None:
        """Refuse: others may be using it."""
        raise NodeCommandError(f"{self.origin} is not ours to {'kill' if kill else 'stop'}")

    def start(self, *, empty: bool = False) -> None:
        """Do nothing, for it runs; refuse to empty it."""
        if empty:
            raise NodeCommandError(f"{self.origin} is not ours to empty")

    def close(self) -> None:
        """Leave it running."""


class ContainerServer:
    """A container that is ours."""

    can_control = True

    def __init__(self, kind: Kind) -> None:
        try:
            from testcontainers.core.container import DockerContainer
        except ImportError as exc:
            raise NodeUnavailableError(f"no containers: {exc.name} is not installed") from exc
        from cluster_kit.testing.servers.container import engine_answers, free_port

        if not engine_answers():
            raise NodeUnavailableError("no Docker engine answers")
        self._kind = kind
        port = free_port()
        self._container: DockerContainer = DockerContainer(kind.image)
        self._container.with_bind_ports(kind.port, port)
        for name, value in kind.environment.items():
            self._container.with_env(name, value)
        if kind.command:
            self._container.with_command(list(kind.command))
        self._closed = False
        self.origin = f"container {kind.image}"
        self._container.start()
        host = self._container.get_container_host_ip()
        self.url = f"{kind.name}://{host}:{port}"
        try:
            kind.await_answer(self.url)
        except BaseException:
            self.close()
            raise

    def stop(self, *, kill: bool = False) -> None:
        """Stop the container; its files stay."""
        inner: Any = self._container.get_wrapped_container()
        if kill:
            inner.kill()
        else:
            inner.stop()

    def start(self, *, empty: bool = False) -> None:
        """Start the stopped container."""
        inner: Any = self._container.get_wrapped_container()
        inner.start()
        self._kind.await_answer(self.url)
        if empty and self._kind.name == "redis":
            inner.exec_run(["redis-cli", "FLUSHALL"])

    def close(self) -> None:
        """Remove the container."""
        if not self._closed:
            self._closed = True
            self._container.stop()


class LocalServer:
    """A program of this machine, on a free port, in a temporary folder."""

    can_control = True

    def __init__(self, kind: Kind) -> None:
        program = shutil.which(kind.program) or shutil.which(kind.program, path="/usr/sbin:/sbin")
        if program is None:
            raise NodeUnavailableError(f"{kind.program} is not installed")
        self._kind = kind
        self.origin = program
        self._folder = Path(tempfile.mkdtemp(prefix=f"cluster-kit-{kind.name}-"))
        self._data = self._folder / "data"
        self._data.mkdir()
        [self._port] = free_ports(1)
        self.url = f"{kind.name}://127.0.0.1:{self._port}"
        self._guard: subprocess.Popen[str] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self, *, empty: bool = False) -> None:
        """Start it; return when it answers."""
        if self._guard is not None:
            return
        if empty:
            shutil.rmtree(self._data)
            self._data.mkdir()
        order = {
            "commands": [[self.origin, *self._kind.arguments(self._port, self._data)]],
            "folder": str(self._folder),
        }
        guard = self._guard = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", str(GUARD), json.dumps(order)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._kind.await_answer(self.url, lambda: guard.poll() is None)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it and wait for its end."""
        self._order("kill" if kill else "stop")

    def close(self) -> None:
        """Stop it and remove its folder."""
        self._order("close")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _order(self, order: str) -> None:
        running, self._guard = self._guard, None
        if running is not None:
            with contextlib.suppress(BrokenPipeError):
                running.communicate(f"{order}\n")


PROVIDERS: Sequence[Callable[[Kind], PlainServer]] = (GivenServer, ContainerServer, LocalServer)
"""Tried in this order."""


def start_plain(
    kind: Kind, providers: Sequence[Callable[[Kind], PlainServer]] = PROVIDERS
) -> PlainServer:
    """Return a server of a kind to test against; `close` ends it.

    Raises:
        NodeUnavailableError: there is none; the text says why, provider by provider.
    """
    reasons: list[str] = []
    for provider in providers:
        try:
            return provider(kind)
        except NodeUnavailableError as exc:
            if exc.final:
                raise
            reasons.append(str(exc))
    raise NodeUnavailableError(f"no {kind.name} to test against: " + "; ".join(reasons))


def _user() -> str:
    """Return who memcached runs as: it refuses to be root unless it is told so."""
    return os.environ.get("USER") or ("root" if os.geteuid() == 0 else "nobody")
