"""A RabbitMQ in a container."""

from __future__ import annotations

import contextlib
import gc
import socket
import warnings
from collections.abc import Sequence
from time import sleep
from typing import TYPE_CHECKING, Any

from cluster_kit.clock import SystemClock
from cluster_kit.testing.servers.handshake import server_properties
from cluster_kit.testing.servers.node import NodeCommandError, NodeUnavailableError

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

IMAGE = "rabbitmq:4.1.4"
"""The image that is run."""

_ENGINE_SECONDS = 3
_START_SECONDS = 120.0


def container_node() -> ContainerNode:
    """Start a container, if testcontainers is installed and a Docker engine answers."""
    try:
        from testcontainers.core.container import DockerContainer
    except ImportError as exc:
        raise NodeUnavailableError(f"no containers: {exc.name} is not installed") from exc
    if not engine_answers():
        raise NodeUnavailableError("no Docker engine answers")
    port = free_port()
    # A port of our own choice: one chosen by Docker would be another after a restart.
    container = DockerContainer(IMAGE, hostname="rabbitmq").with_bind_ports(5672, port)
    return ContainerNode(container, port)


def engine_answers() -> bool:
    """Whether there is a Docker engine to use."""
    from testcontainers.core.docker_client import DockerClient

    with warnings.catch_warnings():
        # The Docker client leaves its socket to the garbage collector when nobody answers.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            engine: Any = DockerClient(timeout=_ENGINE_SECONDS).client
            engine.ping()
        except Exception:  # noqa: BLE001 - whatever it says: there is no engine to use
            return False
        finally:
            engine = None
            gc.collect()
    return True


class ContainerNode:
    """A container that is ours: testcontainers removes it even when the test run is killed."""

    can_control = True
    has_ctl = True
    ctl_command: Sequence[str] = ()  # the engine is asked through its client, not by a program
    origin = f"container {IMAGE}"

    def __init__(self, container: DockerContainer, port: int) -> None:
        self._container = container
        self._closed = False
        container.start()
        try:
            # Its host is not this one when the Docker engine is remote.
            host = container.get_container_host_ip()
            # The image lets guest in from everywhere.
            self.url = f"amqp://guest:guest@{host}:{port}/"
            self._await_greeting()
        except BaseException:
            self.close()
            raise

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl inside."""
        done = self._container.exec(["rabbitmqctl", *args])
        output = done.output.decode(errors="replace")
        if done.exit_code != 0:
            raise NodeCommandError(f"rabbitmqctl {' '.join(args)}: {output.strip()}")
        return output

    def stop(self, *, kill: bool = False) -> None:
        """Stop the container; its files stay."""
        container = self._container.get_wrapped_container()
        if kill:
            container.kill()
        else:
            container.stop()

    def start(self) -> None:
        """Start the stopped container."""
        self._container.get_wrapped_container().start()
        self._await_greeting()

    def close(self) -> None:
        """Remove the container."""
        if not self._closed:
            self._closed = True
            self._container.stop()

    def _await_greeting(self) -> None:
        clock = SystemClock()
        end = clock.monotonic() + _START_SECONDS
        while clock.monotonic() < end:
            with contextlib.suppress(OSError):
                server_properties(self.url, timeout=5.0)
                self.ctl("await_startup")
                return
            sleep(0.2)
        raise NodeUnavailableError(f"{self.origin} did not start", final=True)


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
