from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import pytest
import uvloop

from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.servers.given import CTL_VARIABLE, URL_VARIABLE
from integration.shared_node import (
    SharedNode,
    is_ours,
    own_rabbitmq,
    own_rabbitmq_server,
    rabbitmq_server,
)

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)

IN_CI = bool(os.environ.get("CI"))
NOT_OURS = pytest.StashKey[int]()

_LEFT_OUT = "cluster_kit_left_out"

__all__ = ["own_rabbitmq", "own_rabbitmq_server", "rabbitmq_server"]

ON_UVLOOP_TOO = (
    "test_amqp_loss.py::",
    "test_link_cuts.py::",
    "test_event_queue_contract.py::FaultScenarios.",
)
"""Where links break: files, and a group of scenarios."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    function = getattr(item, "function", None)
    name = f"{item.path.name}::{getattr(function, '__qualname__', '')}"
    if any(part in name for part in ON_UVLOOP_TOO):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(scope="session")
def contract_vhost(rabbitmq_server: RabbitServer) -> str:
    """One for all scenarios: they keep apart by the names of their applications.

    The queues that all applications of a virtual host share need not be made again for each.
    """
    return rabbitmq_server.new_url()


def pytest_configure(config: pytest.Config) -> None:
    shared = SharedNode()
    config.pluginmanager.register(shared, "cluster-kit-shared-node")
    for marker in (
        "own_broker: stops, starts or starves the broker; not run where there is none of ours",
        "broker_control: needs rabbitmqctl; not run on a broker that is not ours without it",
    ):
        config.addinivalue_line("markers", marker)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Those that wait for one node are one group: known before groups become part of names."""
    if item.get_closest_marker("own_broker"):
        item.add_marker(pytest.mark.xdist_group("own broker"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whether the broker may be stopped is known before the first test: nothing is skipped."""
    out = [item for item in items if not _runs(config, item)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
        config.stash[NOT_OURS] = len(out)
    if hasattr(config, "workerinput"):  # what takes long is not to be what remains
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _runs(config: pytest.Config, item: pytest.Item) -> bool:
    ours = is_ours(config)
    controlled = ours or bool(os.environ.get(CTL_VARIABLE))
    return (ours or not item.get_closest_marker("own_broker")) and (
        controlled or not item.get_closest_marker("broker_control")
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if left_out := config.stash.get(NOT_OURS, 0):
        terminalreporter.write_line(
            f"{left_out} tests that take hold of the broker not run: "
            f"the one of {URL_VARIABLE} is not ours"
        )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Tests are left out in the processes that run them, and told by the one that reports."""
    node.config.stash[NOT_OURS] = getattr(node, "workeroutput", {}).get(_LEFT_OUT, 0)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_LEFT_OUT] = session.config.stash.get(NOT_OURS, 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _no_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _no_skip(report)


def _no_skip(report: R) -> R:
    """In CI a test that could not be run has failed: green must mean that all of it ran."""
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI is set: {report.longrepr}"
    return report
