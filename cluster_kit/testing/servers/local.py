"""A RabbitMQ node from the programs of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from time import sleep

from cluster_kit.clock import SystemClock
from cluster_kit.testing.servers.handshake import server_properties
from cluster_kit.testing.servers.node import NodeUnavailableError, run_ctl

_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/sbin", "/sbin")
# The first is Debian's, where the programs on the PATH are wrappers that insist on another user.

GUARD = Path(__file__).with_name("guard.py")
_START_SECONDS = 120.0
_PORTS = range(20_000, 32_000)  # below the range from which systems give ports to clients

_CTL = """\
#!/bin/sh
for name in $(env | grep -oE '^(RABBITMQ|ERL)_[A-Z_]+'); do unset "$name"; done
export {variables}
exec {program} "$@"
"""

_CONFIG = """\
# Small and quick: a node for tests.
disk_free_limit.absolute = 10MB
raft.wal_max_size_bytes = 67108864
log.file.level = warning
"""


def local_node() -> LocalNode:
    """Start a node from ``rabbitmq-server`` of this machine."""
    places = [*_FOLDERS, *os.environ.get("PATH", "").split(os.pathsep)]
    for place in places:
        folder = Path(place)
        if (folder / "rabbitmq-server").is_file() and (folder / "rabbitmqctl").is_file():
            return LocalNode(folder)
    raise NodeUnavailableError("rabbitmq-server is not installed")


class LocalNode:
    """Runs on free ports of the loopback interface, in a temporary folder, as any user.

    It shares nothing with another node of the machine: neither data, plugins, configuration and
    Erlang cookie nor the port mapper that Erlang nodes find each other by.

    Args:
        programs: folder with ``rabbitmq-server`` and ``rabbitmqctl``.
        first: of a cluster; this one joins it, and must be closed before it.

    Attributes:
        name: of the node, among Erlang's.
        mapper_port: where nodes of the cluster find each other.
        cookie: by which they know each other.
    """

    can_control = True
    has_ctl = True

    def __init__(self, programs: Path, first: LocalNode | None = None) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="cluster-kit-rabbitmq-"))
        self._guard: subprocess.Popen[str] | None = None
        port, distribution, mapper = free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        self._has_mapper = first is None
        self.mapper_port: int = mapper if first is None else first.mapper_port
        self.cookie: str = secrets.token_hex(20).upper() if first is None else first.cookie
        own = _environment(self._folder, port, distribution, self.mapper_port)
        self.name: str = own["RABBITMQ_NODENAME"]
        self._environment = _inherited() | own
        self.ctl_command: Sequence[str] = (str(self._folder / "ctl"),)
        _prepare(self._folder, self.cookie)
        _write_ctl(Path(self.ctl_command[0]), programs / "rabbitmqctl", own)
        try:
            self.start()
            if first is not None:
                self._join(first)
        except BaseException:
            self.close()
            raise

    @property
    def origin(self) -> str:
        """The program it was started from."""
        return str(self._programs / "rabbitmq-server")

    def ctl(self, *args: str) -> str:
        """Run this installation's rabbitmqctl on the node."""
        return run_ctl([*self.ctl_command, *args])

    def member(self) -> LocalNode:
        """Start another node that joins this one's cluster."""
        return LocalNode(self._programs, self)

    def _join(self, first: LocalNode) -> None:
        for order in (["stop_app"], ["join_cluster", first.name], ["start_app"]):
            self.ctl(*order)

    def start(self) -> None:
        """Start it; return when it greets."""
        if self._guard is not None:
            return
        order = {
            "commands": [*self._mapper_command(), [self.origin]],
            "folder": str(self._folder),
        }
        self._guard = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", str(GUARD), json.dumps(order)],
            env=self._environment,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._await_greeting(self._guard)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it and wait for its end."""
        self._order("kill" if kill else "stop")

    def close(self) -> None:
        """Stop it and remove its folder."""
        self._order("close")
        shutil.rmtree(self._folder, ignore_errors=True)  # in case it did not run

    def _order(self, order: str) -> None:
        running, self._guard = self._guard, None
        if running is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended by itself
                running.communicate(f"{order}\n")

    def _mapper_command(self) -> list[list[str]]:
        """Run the port mapper ourselves: one that Erlang starts would outlive the node."""
        program = shutil.which("epmd")
        if program is None or not self._has_mapper:
            return []
        return [[program, "-port", str(self.mapper_port), "-address", "127.0.0.1"]]

    def _await_greeting(self, running: subprocess.Popen[str]) -> None:
        clock = SystemClock()
        end = clock.monotonic() + _START_SECONDS
        while clock.monotonic() < end and running.poll() is None:
            try:
                server_properties(self.url, timeout=5.0)
            except OSError:
                sleep(0.1)
            else:
                self.ctl("await_startup")  # it greets before plugins and listeners are complete
                return
        said = (self._folder / "console.log").read_text(errors="replace")[-2000:]
        raise NodeUnavailableError(f"{self.origin} did not start: {said}", final=True)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface on which nobody listens."""
    with contextlib.ExitStack() as held:
        return [held.enter_context(_bound()).getsockname()[1] for _ in range(count)]


@contextlib.contextmanager
def _bound() -> Generator[socket.socket]:
    for port in random.sample(_PORTS, 100):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            yield candidate
            return
    raise NodeUnavailableError(f"no free port from {_PORTS.start} to {_PORTS.stop}", final=True)


def _inherited() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RABBITMQ_", "ERL_"))
    }


def _environment(folder: Path, port: int, distribution: int, mapper: int) -> dict[str, str]:
    return {
        "HOME": str(folder),  # the Erlang cookie lives there
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"ck{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_CTL_DIST_PORT_MIN": "10000",
        "RABBITMQ_CTL_DIST_PORT_MAX": "19999",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }


def _prepare(folder: Path, secret: str) -> None:
    (folder / "data").mkdir()
    (folder / "log").mkdir()
    (folder / "enabled_plugins").write_text("[].\n")
    (folder / "rabbitmq.conf").write_text(_CONFIG)
    (folder / "rabbitmq-env.conf").write_text("")
    cookie = folder / ".erlang.cookie"
    cookie.write_text(secret)
    cookie.chmod(0o400)


def _write_ctl(script: Path, program: Path, environment: dict[str, str]) -> None:
    """Make a rabbitmqctl that needs nothing of its caller's environment."""
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    script.write_text(_CTL.format(variables=variables, program=shlex.quote(str(program))))
    script.chmod(0o700)
