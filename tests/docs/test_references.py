"""Tables of the documents against the code they speak of."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_kit import EventQueue, errors
from cluster_kit.errors import ClusterKitError
from cluster_kit.ports import EventQueueAdapter
from cluster_kit.settings import Settings
from cluster_kit.settings.model import ArgumentSettings
from cluster_kit.settings.places import paths, variable
from cluster_kit.telemetry import EVENTS
from cluster_kit.testing.contracts.cache import Features as CacheFeatures
from cluster_kit.testing.contracts.event_queue import Features
from cluster_kit.testing.contracts.pubsub import Features as PubSubFeatures
from cluster_kit_aiocache.redis_options import KNOWN_OPTIONS as OPTIONS_OF_REDIS
from cluster_kit_amqp.options import KNOWN_OPTIONS
from tests.docs.documents import ROOT, parse

ROW = re.compile(r"^\| (?P<cells>.*) \|$", re.MULTILINE)
VARIABLE = re.compile(r"`(CLUSTER_KIT_[A-Z0-9_]+)`")
DESCRIBED = (
    "cluster_kit",
    "cluster_kit/event_queue",
    "cluster_kit/pubsub",
    "cluster_kit/locks",
    "cluster_kit/cache",
    "cluster_kit/after_commit",
    "adapters/cluster_kit_sqlalchemy",
    "adapters/cluster_kit_amqp",
    "adapters/cluster_kit_amqp/broadcast",
    "adapters/cluster_kit_amqp/connection",
    "adapters/cluster_kit_amqp/control",
    "adapters/cluster_kit_amqp/locks",
    "adapters/cluster_kit_amqp/plane",
    "adapters/cluster_kit_amqp/questions",
    "adapters/cluster_kit_amqp/tasks",
    "adapters/cluster_kit_sqlalchemy",
    "adapters/cluster_kit_sqlalchemy/outbox",
    "adapters/cluster_kit_sqlalchemy/relay",
    "adapters/cluster_kit_sqlalchemy/inbox",
)
SHORT_TABLE = 10  # settings in the README, which leads to the page that has all
FOLDERS = {
    "event_queue",
    "pubsub",
    "locks",
    "cache/",
    "after_commit",
    "broadcast",
    "connection",
    "control",
    "plane",
    "questions",
    "tasks",
    "outbox",
    "relay",
    "inbox",
}  # whose modules the architecture names, too


def rows(document: str) -> list[list[str]]:
    text = (ROOT / document).read_text()
    return [[cell.strip() for cell in match["cells"].split(" | ")] for match in ROW.finditer(text)]


def settings_table(document: str) -> dict[str, str]:
    """Variable to default, of each row that begins with a variable."""
    found = [(VARIABLE.fullmatch(row[0]), row) for row in rows(document)]
    table = [(match[1], row[1]) for match, row in found if match]
    assert len(table) == len(dict(table)), "a variable stands there twice"
    return dict(table)


def shown_default(path: tuple[str, ...]) -> str:
    value: object = ArgumentSettings()
    for name in path:
        value = getattr(value, name)
    if value is None:
        return "none"
    return (
        "empty" if value in ("", ()) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def test_settings_are_as_in_the_code() -> None:
    known = {variable(path): shown_default(path) for path in paths(Settings)}

    assert settings_table("docs/reference/settings.md") == known
    short = settings_table("README.md")
    assert len(short) == SHORT_TABLE
    assert short.items() <= known.items()


def test_errors_are_as_in_the_code() -> None:
    document = (ROOT / "docs/reference/errors.md").read_text()
    drawn = parse(document, "errors.md")[0].code

    tree = inspect.cleandoc(errors.__doc__ or "").split("::\n\n")[1]
    assert tree.startswith("".join(f"    {line}\n" for line in drawn.splitlines()))
    assert error_names(drawn) == {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ClusterKitError)
    }


def error_names(tree: str) -> set[str]:
    return {line.lstrip("│├└─ ").split()[0] for line in tree.splitlines()}


def test_telemetry_events_are_as_in_the_code() -> None:
    table = {
        row[0].strip("`"): tuple(re.findall(r"`(\w+)`", row[1]))
        for row in rows("docs/how-to/operate.md")
        if re.fullmatch(r"`\w+\.\w+`", row[0])
    }

    assert table == dict(EVENTS)


def tables(document: str, heading: str) -> list[dict[str, str]]:
    """Each table with this first heading: name to second cell."""
    found: list[dict[str, str]] = []
    inside = False
    for row in rows(document):
        if re.fullmatch("-+", row[0]):
            continue
        names = re.findall(r"`([a-z_]+)`", row[0])
        if row[0] == heading:
            found.append({})
        elif inside and names:
            found[-1] |= dict.fromkeys(names, row[1])
        inside = row[0] == heading or (inside and bool(names))
    return found


def options(method: Callable[..., object]) -> dict[str, object]:
    """Keyword-only parameters with their defaults."""
    parameters = inspect.signature(method).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize(("number", "method"), [(0, "subscribe"), (1, "publish")])
def test_the_options_of_tasks_are_as_in_the_code(number: int, method: str) -> None:
    table = tables("docs/how-to/tasks.md", "option")[number]
    real = options(getattr(EventQueue, method))

    assert list(table) == list(real)
    for name, default in real.items():
        if default is not None:  # what None leaves to whom is told in words
            assert table[name].strip("`") == str(default)


def test_the_options_of_urls_are_as_in_the_code() -> None:
    amqp, redis = tables("docs/reference/settings.md", "option")

    assert set(amqp) == set(KNOWN_OPTIONS)
    assert set(redis) == set(OPTIONS_OF_REDIS)


def test_the_port_is_as_in_the_code() -> None:
    [table] = tables("docs/how-to/write-an-adapter.md", "method of `EventQueueAdapter`")

    assert set(table) == {
        name for name in vars(EventQueueAdapter) if not name.startswith("_") and name != "mro"
    }


def test_the_features_of_an_adapter_are_as_in_the_code() -> None:
    shown = tables("docs/how-to/write-an-adapter.md", "feature")

    assert [list(table) for table in shown] == [
        [field.name for field in dataclasses.fields(features)]
        for features in (Features, PubSubFeatures, CacheFeatures)
    ]


def test_the_fixtures_are_as_in_the_code() -> None:
    [table] = tables("docs/how-to/testing.md", "fixture")

    source = ast.parse((ROOT / "cluster_kit/testing/fixtures.py").read_text())
    defined = {
        node.name
        for node in source.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list
    }
    assert set(table) == defined


def test_the_modules_of_the_architecture_are_those_there_are() -> None:
    named: set[str] = set()
    for row in rows("docs/architecture.md"):
        if all(re.fullmatch(r"`[a-z_]+/?`", name) for name in row[0].split(", ")):
            named |= set(re.findall(r"[a-z_]+", row[0]))
    named -= FOLDERS

    assert named == set().union(*(modules(ROOT / folder) for folder in DESCRIBED))


def modules(folder: Path) -> set[str]:
    inner = {path.stem for path in folder.glob("[a-z]*.py")}
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    return (inner | folders) - FOLDERS


# --- health ----------------------------------------------------------------------------------

DEGRADED = {
    "adapters/cluster_kit_aiocache/state.py": set[str](),  # what is down there degrades a cache
    "adapters/cluster_kit_amqp/connection/supervised.py": {"the broker blocks publishers"},
    "adapters/cluster_kit_amqp/tasks/consumer.py": {"is not taking"},
    "adapters/cluster_kit_amqp/tasks/publisher.py": {"fails"},
    "adapters/cluster_kit_amqp/tasks/upkeep.py": {"tasks may be kept waiting"},
    "adapters/cluster_kit_amqp/broadcast/adapter.py": {"fails"},
    "adapters/cluster_kit_amqp/broadcast/attachment.py": {"do not arrive"},
    "adapters/cluster_kit_memory/store.py": {"cannot write"},
    "adapters/cluster_kit_sqlalchemy/inbox/service.py": {"pruning failed"},
    "adapters/cluster_kit_sqlalchemy/relay/loop.py": {
        "message that is due waits",
        "messages are given up",
        "nothing can be sent",
    },
    "cluster_kit/cache/guard.py": {"its store does not answer", "its store refuses"},
    "cluster_kit/cache/wrapping.py": {"could not be used"},
    "cluster_kit/cache/engine.py": {
        "invalidations of other instances may be missed",
        "invalidations wait to be told",
    },
    "cluster_kit/event_queue/settlement.py": {"the outcome of task"},
    "cluster_kit/event_queue/subscription.py": {"cannot consume"},
    "cluster_kit/locks/service.py": {"could not be renewed"},
    "cluster_kit/pubsub/lane.py": {"cannot keep up"},
    "cluster_kit/pubsub/twins.py": {"another living process has instance id"},
}
"""Where something becomes `degraded`, and in which words."""

TELLS = re.compile(
    r"""\.report\([^()]*"degraded" | HealthStatus\ =\ "degraded" | Health\(status="degraded"
    | def\ troubles?\b | self\._?trouble:?\ [^=\n]*=\  | status=status""",
    re.VERBOSE,
)
PASSES_ON = {  # what others said
    "adapters/cluster_kit_amqp/health.py",
    "adapters/cluster_kit_memory/event_queue.py",
    "cluster_kit/cache/cache.py",
    "cluster_kit/cache/connector.py",
    "cluster_kit/cache/service.py",
    "cluster_kit/cache/stores.py",
    "cluster_kit/event_queue/consumption.py",
    "cluster_kit/event_queue/service.py",
    "cluster_kit/pubsub/service.py",
    "cluster_kit/sync_messages.py",
}


def test_the_list_of_what_degrades_health_is_complete() -> None:
    sources = [
        path
        for folder in ("cluster_kit", "adapters")
        for path in (ROOT / folder).rglob("*.py")
        if "testing" not in path.parts
    ]
    telling = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if TELLS.search(path.read_text(encoding="utf-8"))
    }
    page = (ROOT / "docs/how-to/operate.md").read_text(encoding="utf-8")

    assert telling - PASSES_ON == set(DEGRADED)
    for place, texts in DEGRADED.items():
        source = (ROOT / place).read_text(encoding="utf-8")
        for text in texts:
            assert text in source
            assert text in page
