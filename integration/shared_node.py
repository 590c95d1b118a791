"""One RabbitMQ for all processes of a parallel run, and another for tests that stop theirs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from cluster_kit.testing.servers import NodeUnavailableError, RabbitServer, start_rabbitmq
from cluster_kit.testing.servers.container import container_node
from cluster_kit.testing.servers.given import CTL_VARIABLE, URL_VARIABLE
from cluster_kit.testing.servers.local import local_node

_SHARED = "cluster_kit_shared_node"
_NODE = pytest.StashKey[RabbitServer]()


def is_ours(config: pytest.Config) -> bool:
    """Whether this run has started its broker itself, be it in the process above."""
    return _SHARED in getattr(config, "workerinput", {}) or not os.environ.get(URL_VARIABLE)


class SharedNode:
    """Starts a node before the processes, which are given it by their environment."""

    def pytest_configure(self, config: pytest.Config) -> None:
        alone = config.getoption("dist", "no") == "no" or hasattr(config, "workerinput")
        if alone or config.option.collectonly or not is_ours(config):
            return
        try:
            server = start_rabbitmq()
        except NodeUnavailableError:
            return  # each process finds out, and says it as it would alone
        if not server.ctl_command:
            server.close()
            return
        config.stash[_NODE] = server
        os.environ[URL_VARIABLE] = server.url
        os.environ[CTL_VARIABLE] = shlex.join(server.ctl_command)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if _NODE in node.config.stash:
            node.workerinput[_SHARED] = True

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        server = config.stash.get(_NODE, None)
        if server is not None:
            del os.environ[URL_VARIABLE], os.environ[CTL_VARIABLE]
            server.close()


@pytest.fixture(scope="session")
def rabbitmq_server(
    rabbitmq_server: RabbitServer, pytestconfig: pytest.Config
) -> Iterator[RabbitServer]:
    """That of the harness; where the process above ends it, nobody has to tidy it up."""
    yield rabbitmq_server
    if _SHARED in getattr(pytestconfig, "workerinput", {}):
        rabbitmq_server.leave_vhosts()


@pytest.fixture(scope="session")
def own_rabbitmq_server(request: pytest.FixtureRequest) -> Iterator[RabbitServer]:
    """A node that a test may stop: that of the run, or one more where several processes use it."""
    if not os.environ.get(URL_VARIABLE):
        yield request.getfixturevalue("rabbitmq_server")
        return
    server = start_rabbitmq([container_node, local_node])
    yield server
    server.close()


@pytest.fixture
def own_rabbitmq(own_rabbitmq_server: RabbitServer) -> str:
    """URL of a virtual host of this test's own on a node that it may stop."""
    return own_rabbitmq_server.new_url()
