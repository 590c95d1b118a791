"""Which scenarios of a contract are run: all that the adapter does not declare impossible."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

_OUTPUT = "cluster_kit_dropped"


class ContractFeatures:
    """What the `features` of a class are when its scenarios are those of a contract."""

    __slots__ = ()


class Selection:
    """Drops what an adapter's `Features` rule out, and says so at the end of the run."""

    def __init__(self) -> None:
        self.dropped: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Deselect scenarios that need a feature their class declares absent."""
        kept: list[pytest.Item] = []
        out: list[pytest.Item] = []
        for item in items:
            lacking = _lacking(item)
            if lacking:
                owner = item.getparent(pytest.Class)
                self.dropped[owner.name if owner else ""][lacking].append(item.name)
            (out if lacking else kept).append(item)
        if out:
            config.hook.pytest_deselected(items=out)
            items[:] = kept

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand what was dropped to the process that reports, where pytest-xdist runs several."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = {owner: dict(lists) for owner, lists in self.dropped.items()}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take what one of several processes has dropped: the same as the others."""
        output: dict[str, Any] = getattr(node, "workeroutput", {})
        self.dropped.update(output.get(_OUTPUT, {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List what was dropped."""
        for owner, features in sorted(self.dropped.items()):
            for feature, names in sorted(features.items()):
                number = f"{len(names)} scenario{'' if len(names) == 1 else 's'}"
                text = f"{owner} declares {feature} unsupported: {number} not run"
                terminalreporter.write_line(text)


def _lacking(item: pytest.Item) -> str:
    owner = item.getparent(pytest.Class)
    needed = dict.fromkeys(name for mark in item.iter_markers("needs") for name in mark.args)
    if not needed:
        return ""
    features = getattr(owner.obj if owner else None, "features", None)
    if not isinstance(features, ContractFeatures):
        return ""  # no contract of ours: elsewhere the marker may mean anything
    for name in needed:
        if not isinstance(getattr(features, name, None), bool):
            raise pytest.UsageError(f"{item.nodeid} needs {name!r}, which is no feature")
    return ", ".join(name for name in needed if not getattr(features, name))
