"""A RabbitMQ that somebody else runs, named in the environment."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import NoReturn

from cluster_kit.testing.servers.handshake import server_properties
from cluster_kit.testing.servers.node import NodeCommandError, NodeUnavailableError, run_ctl
from cluster_kit.urls import redact_url

URL_VARIABLE = "CLUSTER_KIT_TEST_AMQP_URL"
CTL_VARIABLE = "CLUSTER_KIT_TEST_AMQP_CTL"

_ANSWER_SECONDS = 10.0


def given_node() -> GivenNode:
    """Return the node of ``CLUSTER_KIT_TEST_AMQP_URL``."""
    url = os.environ.get(URL_VARIABLE, "")
    if not url:
        raise NodeUnavailableError(f"{URL_VARIABLE} is not set")
    try:
        server_properties(url, timeout=_ANSWER_SECONDS)
    except OSError as exc:
        text = f"{URL_VARIABLE} is {redact_url(url)}, and no RabbitMQ answers there: {exc}"
        raise NodeUnavailableError(text, final=True) from exc
    return GivenNode(url, shlex.split(os.environ.get(CTL_VARIABLE, "")))


class GivenNode:
    """Not ours: it is never stopped.

    Args:
        url: of the broker.
        ctl: command line to which the arguments of rabbitmqctl are appended; empty when nobody
            said how to run it, and then every test shares the virtual host of `url`.
    """

    can_control = False

    def __init__(self, url: str, ctl: Sequence[str] = ()) -> None:
        self.url = url
        self.ctl_command: Sequence[str] = tuple(ctl)

    @property
    def origin(self) -> str:
        """The variable it comes from."""
        return f"{URL_VARIABLE}={redact_url(self.url)}"

    @property
    def has_ctl(self) -> bool:
        """Whether ``CLUSTER_KIT_TEST_AMQP_CTL`` was set."""
        return bool(self.ctl_command)

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl as the environment says."""
        if not self.ctl_command:
            raise NodeCommandError(f"set {CTL_VARIABLE} to the command line of rabbitmqctl")
        return run_ctl([*self.ctl_command, *args])

    def stop(self, *, kill: bool = False) -> NoReturn:
        """Refuse: others may be using it."""
        raise NodeCommandError(f"{self.origin} is not ours to {'kill' if kill else 'stop'}")

    def start(self) -> None:
        """Do nothing: it runs."""

    def close(self) -> None:
        """Leave it running."""
