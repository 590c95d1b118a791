from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.support import run_command

NO_BROKER = (
    "cluster-kit: no broker: set CLUSTER_KIT_AMQP_URL or give --url; "
    "memory:// lies inside another process, which no command can look into\n"
)
COMMANDS = [
    ("publish", "mails", "1"),
    ("queues",),
    ("dead-letters", "list", "mails"),
    ("dead-letters", "show", "mails", "some-id"),
    ("dead-letters", "replay", "mails"),
    ("dead-letters", "discard", "mails", "--yes"),
    ("dead-letters", "export", "mails"),
]


def test_help_names_every_command() -> None:
    outcome = run_command("--help")

    assert outcome.code == 0
    for name in ("demo", "run", "publish", "queues", "dead-letters", "adapters"):
        assert f"\n  {name} " in outcome.out


@pytest.mark.parametrize("command", [(), ("dead-letters",)])
def test_without_a_command_the_help_is_shown(command: tuple[str, ...]) -> None:
    outcome = run_command(*command)

    assert outcome.code == 2
    assert "Commands:" in outcome.out + outcome.err


def test_version() -> None:
    assert run_command("--version").out == f"cluster-kit {version('cluster-kit')}\n"


def test_help_imports_neither_settings_nor_tables() -> None:
    code = (
        "import sys; sys.argv = ['cluster-kit', '--help']\n"
        "from cluster_kit.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "found = {'pydantic', 'pydantic_settings', 'rich.table', 'aio_pika'} & set(sys.modules)\n"
        "print(sorted(found), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "Usage: cluster-kit" in done.stdout
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("url", [(), ("--url", "memory://hub")])
def test_without_a_broker_one_line_says_what_to_set(
    command: tuple[str, ...], url: tuple[str, ...]
) -> None:
    outcome = run_command(*command, "--app", "shop", *url)

    assert (outcome.code, outcome.out, outcome.err) == (2, "", NO_BROKER)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_an_application_one_line_says_what_to_set(command: tuple[str, ...]) -> None:
    outcome = run_command(*command, "--url", "amqp://mq/")

    line = "cluster-kit: which application? Set CLUSTER_KIT_APP or give --app\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", line)


def test_an_unreachable_broker_is_one_line_without_its_password() -> None:
    outcome = run_command("queues", "--app", "shop", "--url", "amqp://shop:s3cr3t@127.0.0.1:1/")

    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.startswith(
        "cluster-kit: --url: cannot connect to amqp://shop:***@127.0.0.1:1/: "
    )
    assert len(outcome.err.splitlines()) == 1


def test_an_unknown_scheme() -> None:
    outcome = run_command("queues", "--app", "shop", "--url", "ampq://mq/")

    line = "cluster-kit: --url: no adapter for ampq://; did you mean 'amqp'?\n"
    assert (outcome.code, outcome.err) == (2, line)


def test_wrong_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_AMPQ_URL", "amqp://mq/")
    monkeypatch.setenv("CLUSTER_KIT_DRAIN_TIMEOUT", "soon")

    outcome = run_command("queues")

    assert outcome.code == 2
    assert outcome.err == (
        "cluster-kit: CLUSTER_KIT_DRAIN_TIMEOUT: expected a number, not 'soon'\n"
        "CLUSTER_KIT_AMPQ_URL is not a setting; did you mean CLUSTER_KIT_AMQP_URL?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("publish", "a b", "1"), "bad channel 'a b': spaces and control characters are not"),
        (("publish", "a", '{"x":}'), "PAYLOAD_JSON is not JSON: Expecting value: line 1 column 6"),
        (("publish", "a", "NaN"), "PAYLOAD_JSON is not JSON: NaN is not JSON"),
        (("publish", "a", "1", "--header", "x"), "--header 'x' is not KEY=VALUE"),
        (("publish", "a", "1", "--header", "x=1", "--header", "x=2"), "--header 'x' is given tw"),
        (("publish", "a", "1", "--header", "ck-x=1"), "--header: "),
        (("publish", "a", "1", "--header", f"{'x' * 129}=1"), "--header: "),
        (("publish", "a", "1", "--header", f"x={'y' * 16384}"), "--header: "),
        (("publish", "x.dead", "1"), "bad channel 'x.dead': names whose last part is 'dead'"),
        (("dead-letters", "list", "x.dead"), "bad channel 'x.dead': names whose last part is"),
        (("publish", "a", "1", "--delay", "-1"), "--delay must be finite and 0 or more seconds"),
        (("publish", "a", "1", "--delay", "inf"), "--delay must be finite and 0 or more seconds"),
        (("publish", "a", "1", "--ttl", "0"), "--ttl must be finite and above 0 seconds"),
        (("publish", "a", "1", "--timeout", "nan"), "--timeout must be finite and above 0"),
        (("publish", "a", "1", "--id", "a b"), "bad message id 'a b'"),
        (("publish", "a", "1", "--app", "a b"), "bad app name 'a b'"),
        (("queues", "--url", ""), "--url: the URL is empty"),
        (("queues", "--url", "mq"), "--url: this is no URL"),
        (("demo", "--url", "mq"), "--url: this is no URL"),
        (
            ("demo", "--url", "memory://"),
            "--url: of a RabbitMQ, amqp:// or amqps://, not memory://",
        ),
        (("demo", "--url", "redis://mq/"), "--url: of a RabbitMQ, amqp:// or amqps://, not redis"),
        (("dead-letters", "show", "a#", "x"), "bad channel 'a#'"),
        (("dead-letters", "replay", "a", "x y"), "bad message id 'x y'"),
        (("dead-letters", "discard", "a"), "this would discard all dead letters of 'a'; confirm"),
        (("run", "shop"), "expected MODULE:CLUSTER, as in shop.main:cluster, not 'shop'"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], line: str) -> None:
    outcome = run_command(*arguments)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"cluster-kit: {line}")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("publish",),
        ("publish", "a", "1", "--max-retries", "-1"),
        ("run", "shop:cluster", "--workers", "0"),
        ("demo", "--instances", "1"),
        ("dead-letters", "replay", "a", "--rate", "0"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    outcome = run_command(*arguments)

    assert (outcome.code, outcome.out) == (2, "")
    assert "Error: " in outcome.err


REDIS_URLS = "redis:// rediss:// unix:// redis+sentinel:// rediss+sentinel://"


def test_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command("adapters").out.splitlines() == [
        f"adapter     {'urls':<78}capabilities",
        f"aiocache    {REDIS_URLS} memcached://  locks cache",
        f"amqp        {'amqp:// amqps://':<78}event_queue pubsub locks",
        f"memory      {'memory://':<78}event_queue pubsub locks cache",
        f"sqlalchemy  {'':<78}transactions",
    ]
    assert run_command("adapters", "--json").json[2] == {
        "name": "memory",
        "schemes": ["memory"],
        "capabilities": ["event_queue", "pubsub", "locks", "cache"],
        "problem": None,
    }


def test_adapters_whose_driver_is_missing_are_not_shown_as_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = {"redis", "sqlalchemy", "aiormq"}

    class Hiding(PathFinder):
        @classmethod
        def find_spec(cls, name: str, *where: Any) -> ModuleSpec | None:
            return None if name in hidden else super().find_spec(name, *where)

    for name in hidden:
        monkeypatch.delitem(sys.modules, name, raising=False)
    others = [finder for finder in sys.meta_path if finder is not PathFinder]
    monkeypatch.setattr(sys, "meta_path", [*others, Hiding])

    aiocache, amqp, memory, sqlalchemy = run_command("adapters", "--json").json

    assert (aiocache["schemes"], aiocache["capabilities"]) == (["memcached"], ["locks", "cache"])
    assert "needs the package redis: pip install 'cluster-kit[redis]'" in aiocache["problem"]
    assert "rediss+sentinel://" in aiocache["problem"]
    assert (amqp["schemes"], amqp["capabilities"]) == ([], [])
    assert "needs the package aiormq" in amqp["problem"]
    assert (memory["schemes"], memory["problem"]) == (["memory"], None)
    assert sqlalchemy["capabilities"] == []
    text = "needs the package sqlalchemy: pip install 'cluster-kit[sqlalchemy]'"
    assert text in sqlalchemy["problem"]


@pytest.mark.parametrize("name", ["Outbox", "Inbox", "Fences", "create_tables"])
def test_without_sqlalchemy_an_import_names_the_extra(name: str) -> None:
    code = (
        "import sys\nsys.modules['sqlalchemy'] = None\n"
        f"try: from cluster_kit_sqlalchemy import {name}\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == (
        f"{name} of cluster_kit_sqlalchemy needs the package sqlalchemy: "
        "pip install 'cluster-kit[sqlalchemy]'\n"
    )


def test_an_adapter_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> object:
        text = "No module named 'kafka'"
        raise ModuleNotFoundError(text, name="kafka")

    entries = [SimpleNamespace(name="kafka", value="", load=load, dist=None)]
    monkeypatch.setattr("cluster_kit.registry.entry_points", lambda group: entries)

    outcome = run_command("adapters", "--json")

    (adapter,) = outcome.json
    assert (outcome.code, adapter["name"], adapter["schemes"]) == (0, "kafka", [])
    assert adapter["problem"] == "adapter 'kafka' needs the package kafka"
    assert "problem" in run_command("adapters").out


def test_settings_come_from_the_file_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLUSTER_KIT_AMQP_URL=amqp://u:pw@127.0.0.1:1/\n")

    outcome = run_command("queues", "--app", "shop")

    line = (
        "cluster-kit: amqp_url (CLUSTER_KIT_AMQP_URL): cannot connect to amqp://u:***@127.0.0.1:1/"
    )
    assert outcome.err.startswith(line)
