from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from cluster_kit.errors import ConfigurationError, SettingsError
from cluster_kit.retry import RetryPolicy
from cluster_kit.settings import EventQueueSettings, ServerUrl, Settings, WorkerMode

SECRET = "s3cr3t"
URL = f"amqp://shop:{SECRET}@mq/"


def problems(make: Callable[[], object]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        make()
    assert type(caught.value) is SettingsError  # a traceback shows the name that documents have
    return str(caught.value).splitlines()


# --- where values come from ------------------------------------------------------------------


def test_defaults() -> None:
    settings = Settings()

    assert (settings.app, settings.amqp_url, settings.worker_mode) == (None, None, "")
    assert (settings.drain_timeout, settings.connect_timeout) == (30.0, 10.0)
    assert settings.event_queue.retry.policy() == RetryPolicy()
    assert settings.event_queue.max_payload_bytes == 8 * 1024 * 1024


def test_variables_groups_and_groups_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_APP", "shop")
    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__TIMEOUT", "2.5")
    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__RETRY__MAX_DELAY", "60")
    monkeypatch.setenv("cluster_kit_event_queue__max_in_flight", "7")

    settings = Settings()

    assert settings.app == "shop"
    assert settings.event_queue.timeout == 2.5
    assert settings.event_queue.retry.max_delay == 60.0
    assert settings.event_queue.max_in_flight == 7


def test_argument_wins_over_variable_wins_over_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "CLUSTER_KIT_APP=file\n"
        "CLUSTER_KIT_EVENT_QUEUE__CRASH_LIMIT=1\n"
        "CLUSTER_KIT_EVENT_QUEUE__MAX_RETRIES=1\n"
        "CLUSTER_KIT_EVENT_QUEUE__TIMEOUT=1\n"
        "SOMEBODY_ELSES=1\n"
    )
    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__MAX_RETRIES", "2")
    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__TIMEOUT", "2")

    settings = Settings(event_queue={"timeout": 3})

    assert settings.app == "file"
    queue = settings.event_queue
    assert (queue.crash_limit, queue.max_retries, queue.timeout) == (1, 2, 3.0)


def test_group_given_as_an_object_stands_for_all_of_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__TIMEOUT", "2")

    assert Settings(event_queue=EventQueueSettings()).event_queue.timeout == 60.0


def test_an_argument_of_none_unsets_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_AMQP_URL", URL)

    assert Settings(amqp_url=None).amqp_url is None


def test_durations_may_be_timedeltas() -> None:
    assert Settings(drain_timeout=timedelta(minutes=1)).drain_timeout == 60.0


@pytest.mark.parametrize(
    "path", ["TIMEOUT", "PUBLISH_TIMEOUT", "CANCEL_GRACE", "DRAIN_TIMEOUT", "CONNECT_TIMEOUT"]
)
def test_no_duration_is_over_thirty_days(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    group = "EVENT_QUEUE__" if path in {"TIMEOUT", "PUBLISH_TIMEOUT", "CANCEL_GRACE"} else ""
    name = f"CLUSTER_KIT_{group}{path}"
    monkeypatch.setenv(name, "2592000")
    Settings()
    monkeypatch.setenv(name, "2592001")

    text = "the duration may be at most 2,592,000 seconds, not 2592001.0"
    assert problems(Settings) == [f"{name}: {text}"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_file_with_and_without_byte_order_mark(tmp_path: Path, mark: str) -> None:
    (tmp_path / ".env").write_text(f"{mark}CLUSTER_KIT_APP=shop\n", encoding="utf-8")

    assert Settings().app == "shop"


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"CLUSTER_KIT_APP=\xff\n")

    assert problems(Settings) == ["cannot read .env: it is not UTF-8 text"]


def test_a_folder_called_like_the_file_is_refused_unless_it_is_a_virtual_environment(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").mkdir()
    assert problems(Settings) == ["cannot read .env: it is a directory"]

    (tmp_path / ".env" / "pyvenv.cfg").touch()
    assert Settings().app is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('CLUSTER_KIT_APP="s3cret', "line 4, CLUSTER_KIT_APP"),
        ("export CLUSTER_KIT_DRAIN_TIMEOUT: s3cret", "line 4, CLUSTER_KIT_DRAIN_TIMEOUT"),
        ("cluster_kit_app='s3cret' x", "line 4, cluster_kit_app"),
        ("s3cret words", "line 4"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, said: str
) -> None:
    (tmp_path / ".env").write_text(f"\nCLUSTER_KIT_LOCKS__TIMEOUT=3\n\n{line}\nOTHER=1\n")

    assert problems(Settings) == [f".env, {said}: expected NAME=VALUE"]
    assert not caplog.records


def test_a_line_of_another_program_that_cannot_be_read_is_its_own_affair(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OTHER='one' two\nCLUSTER_KIT_APP=shop\n")

    assert Settings().app == "shop"


# --- wrong names -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "TIMEOUT",
            (
                "CLUSTER_KIT_TIMEOUT is not a setting; "
                "did you mean CLUSTER_KIT_EVENT_QUEUE__TIMEOUT?"
            ),
        ),
        ("AMPQ_URL", "CLUSTER_KIT_AMPQ_URL is not a setting; did you mean CLUSTER_KIT_AMQP_URL?"),
        (
            "EVENT_QUEUE_URL",
            (
                "CLUSTER_KIT_EVENT_QUEUE_URL is not a setting; "
                "did you mean CLUSTER_KIT_EVENT_QUEUE__URL?"
            ),
        ),
        (
            "EVENT_QUEUE__RETRY__JITER",
            (
                "CLUSTER_KIT_EVENT_QUEUE__RETRY__JITER is not a setting; "
                "did you mean CLUSTER_KIT_EVENT_QUEUE__RETRY__JITTER?"
            ),
        ),
        ("APP__NAME", "CLUSTER_KIT_APP__NAME is not a setting; did you mean CLUSTER_KIT_APP?"),
        ("QUITE_ANOTHER", "CLUSTER_KIT_QUITE_ANOTHER is not a setting"),
        (
            "LOCKS",
            (
                "CLUSTER_KIT_LOCKS is a group of settings: "
                "CLUSTER_KIT_LOCKS__URL, CLUSTER_KIT_LOCKS__TIMEOUT"
            ),
        ),
        ("LOCKS__", "CLUSTER_KIT_LOCKS__ is not a setting"),
        ("", "CLUSTER_KIT_ is not a setting"),
    ],
)
def test_unknown_variables(monkeypatch: pytest.MonkeyPatch, name: str, line: str) -> None:
    monkeypatch.setenv(f"CLUSTER_KIT_{name}", "1")

    assert problems(Settings) == [line]


def test_unknown_variable_of_the_file_says_so(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLUSTER_KIT_APPS=1\n")

    line = "CLUSTER_KIT_APPS (in .env) is not a setting; did you mean CLUSTER_KIT_APP?"
    assert problems(Settings) == [line]


def test_a_group_beside_its_own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_LOCKS", "{}")
    monkeypatch.setenv("CLUSTER_KIT_LOCKS__URL", "memory://")

    assert any("CLUSTER_KIT_LOCKS is a group" in line for line in problems(Settings))


def test_variables_of_the_test_harness_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_TEST_AMQP_URL", "anything")

    assert Settings() == Settings()


def test_unknown_arguments() -> None:
    values: dict[str, Any] = {
        "amqp_ulr": URL,
        "event_queue": {"timeot": 1, "retri": {}},
        "pubsubs": {"url": URL},
        "l1_ttl": 1,
        "xyzzy": 1,
    }

    assert sorted(problems(lambda: Settings(**values))) == [
        "amqp_ulr is not a setting; did you mean amqp_url?",
        "event_queue.retri is not a setting; did you mean event_queue.retry?",
        "event_queue.timeot is not a setting; did you mean event_queue.timeout?",
        "l1_ttl is not a setting; did you mean cache.l1_ttl?",
        "pubsubs is not a setting; did you mean pubsub?",
        "xyzzy is not a setting",
    ]


# --- wrong values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("AMQP_URL", "", "the URL is empty"),
        ("AMQP_URL", "mq:5672", "this is no URL: expected scheme://host"),
        ("AMQP_URL", "redis://mq", "starts with redis://, expected amqp:// or amqps://"),
        ("AMQP_URL", "amqp://m q/", "spaces or control characters"),
        ("REDIS_URL", " ", "the URL is empty"),
        ("EVENT_QUEUE__URL", "", "the URL is empty"),
        ("APP", "my shop", "bad app name 'my shop': spaces"),
        ("APP", "", "it is empty"),
        ("INSTANCE_ID", "a b", "bad instance id"),
        ("WORKER_MODE", "-,a", "'-' must stand alone"),
        ("WORKER_MODE", "!,", "worker mode '!,' has an empty item"),
        ("DRAIN_TIMEOUT", "-1", "must be finite and 0 or more seconds"),
        ("CONNECT_TIMEOUT", "0", "must be finite and above 0 seconds"),
        ("CONNECT_TIMEOUT", "nan", "expected a finite number, not 'nan'"),
        ("CONNECT_TIMEOUT", "10s", "expected a number, not '10s'"),
        ("EVENT_QUEUE__MAX_RETRIES", "1.5", "expected a whole number from 0 to 1000000, not"),
        ("EVENT_QUEUE__MAX_RETRIES", "1000001", "expected a whole number from 0 to 1000000, not"),
        ("EVENT_QUEUE__MAX_IN_FLIGHT", "0", "expected a whole number from 1 to 65535, not '0'"),
        ("EVENT_QUEUE__RETRY__JITTER", "2", "expected a number from 0 to 1, not '2'"),
        ("EVENT_QUEUE__RETRY__FACTOR", "0.5", "expected a number 1 or more, not '0.5'"),
        ("EVENT_QUEUE__RETRY__MAX_DELAY", "1e9", "may be at most 2,592,000 seconds"),
    ],
)
def test_wrong_variables(monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str) -> None:
    monkeypatch.setenv(f"CLUSTER_KIT_{name}", value)

    (line,) = problems(Settings)

    assert line.startswith(f"CLUSTER_KIT_{name}: ")
    assert text in line


def test_wrong_arguments_under_their_own_names() -> None:
    values: dict[str, Any] = {"event_queue": {"max_retries": True, "retry": 3}, "worker_mode": None}

    assert problems(lambda: Settings(**values)) == [
        "event_queue.max_retries: expected a number, not bool",
        (
            "event_queue.retry is a group of settings: event_queue.retry.initial_delay, "
            "event_queue.retry.factor, event_queue.retry.max_delay, event_queue.retry.jitter"
        ),
        "worker_mode: a worker mode is a string, not NoneType",
    ]


def test_wrong_group_made_alone() -> None:
    assert problems(lambda: EventQueueSettings(timeout=0, retry={"jitter": -1})) == [
        "timeout: the duration must be finite and above 0 seconds, not 0",
        "retry.jitter: expected a number from 0 to 1, not -1",
    ]


def test_all_problems_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLUSTER_KIT_REDIS_URL\n")
    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__TIMEOUT", "soon")
    monkeypatch.setenv("CLUSTER_KIT_FOO", "1")

    assert problems(lambda: Settings(app="a b", event_queue={"crash_limit": -1})) == [
        "app: bad app name 'a b': spaces and control characters are not allowed",
        "CLUSTER_KIT_REDIS_URL (in .env): the URL is empty; leave it out instead",
        "CLUSTER_KIT_EVENT_QUEUE__TIMEOUT: expected a number, not 'soon'",
        "event_queue.crash_limit: expected a whole number 0 or more, not -1",
        "CLUSTER_KIT_FOO is not a setting",
    ]


# --- secrets ---------------------------------------------------------------------------------


def test_nothing_shows_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_AMQP_URL", URL)
    settings = Settings(event_queue={"url": ServerUrl(URL)}, pubsub={"url": URL})

    again = pickle.loads(pickle.dumps(settings))

    shown = [str(settings), repr(settings), repr(asdict(settings)), f"{settings.amqp_url}"]
    shown += [TypeAdapter(Settings).dump_json(settings).decode(), repr(again)]
    shown += [repr(copy.deepcopy(settings)), str(settings.url_for("event_queue"))]
    shown += settings.warnings(("cache",))
    assert not [text for text in shown if SECRET in text]
    assert "amqp://shop:***@mq/" in repr(settings)
    assert again == settings
    assert again.url_for("event_queue").reveal() == URL


@pytest.mark.parametrize(
    "values",
    [
        {"amqp_url": f"ampq://shop:{SECRET}@mq/"},
        {"amqp_url": f"shop:{SECRET}@mq"},
        {"amqp_url": f"amqp://shop:{SECRET}@m q/"},
        {"app": f"amqp://shop:{SECRET}@mq/ "},
        {"event_queue": URL},
        {"event_queue": {"url": SECRET}},
        {"event_queue": {"timeout": URL}},
        {"worker_mode": f"{URL},-"},
        {"amqp_ulr": URL},
        {"amqp_url": {"password": SECRET}},
    ],
)
def test_no_error_shows_a_password(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**values)

    assert SECRET not in repr(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_settings_are_frozen_and_say_so_without_the_value() -> None:
    settings = Settings()

    with pytest.raises(SettingsError, match="amqp_url: settings are frozen") as caught:
        settings.amqp_url = ServerUrl(URL)
    assert SECRET not in repr(caught.value)
    with pytest.raises(SettingsError, match="frozen"):
        settings.event_queue.timeout = 1.0


def test_addresses_are_values() -> None:
    assert ServerUrl(URL) == ServerUrl(URL) != ServerUrl("amqp://mq/")
    assert len({ServerUrl(URL), ServerUrl(URL)}) == 1
    assert ServerUrl("AMQPS://mq").scheme == "amqps"
    assert ServerUrl(URL) != URL


# --- which server ----------------------------------------------------------------------------


def test_a_server_is_its_own_or_implied_or_memory() -> None:
    def urls(settings: Settings) -> list[str]:
        names = ("event_queue", "pubsub", "cache", "locks")
        return [settings.url_for(name).reveal() for name in names]  # type: ignore[arg-type]

    assert urls(Settings()) == ["memory://"] * 4
    for redis in ("redis://r/", "unix:///r", "redis+sentinel://s-1,s-2/r", "rediss+sentinel://s/r"):
        both = Settings(amqp_url="amqp://mq/", redis_url=redis)
        assert urls(both) == ["amqp://mq/", "amqp://mq/", redis, redis]
    own = Settings(
        amqp_url="amqp://mq/", event_queue={"url": "memory://x"}, locks={"url": "amqp://l"}
    )
    assert urls(own) == ["memory://x", "amqp://mq/", "memory://", "amqp://l"]


def test_memory_by_oversight_beside_a_server_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLUSTER_KIT_REDIS_URL", "redis://r")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"CLUSTER_KIT_LOCKS__URL={URL}\n")
    [one] = Settings(redis_url="redis://r", locks={"url": "memory://"}).warnings()
    [all_three] = Settings(pubsub={"url": URL}).warnings()

    assert one == (
        "event_queue is on memory:// although CLUSTER_KIT_REDIS_URL is set: every instance works "
        "on its own island; set CLUSTER_KIT_EVENT_QUEUE__URL, to memory:// if that is meant"
    )
    assert (
        "although CLUSTER_KIT_REDIS_URL and the argument pubsub.url and CLUSTER_KIT_LOCKS__URL "
        "(in .env) are set" in all_three
    )


def test_a_warning_blames_no_variable_nobody_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_REDIS_URL", "redis://another")
    [warning] = Settings(redis_url="redis://r").warnings()

    assert "although the argument redis_url is set" in warning


@pytest.mark.parametrize(
    "settings",
    [
        Settings,
        lambda: Settings(amqp_url=URL),
        lambda: Settings(event_queue={"url": "memory://x"}, pubsub={"url": "memory://x"}),
        lambda: Settings(amqp_url=URL, event_queue={"url": "memory://x"}),
    ],
)
def test_no_warning_without_reason(settings: Callable[[], Settings]) -> None:
    assert settings().warnings() == []


# --- worker mode -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "web", "a", "b", "transient"),
    [
        ("", True, True, True, False),
        ("  ", True, True, True, False),
        ("!", True, False, False, False),
        ("*", False, True, True, False),
        ("a,b", False, True, True, False),
        (" b , a ", False, True, True, False),
        ("a,", False, True, False, False),
        ("!,a", True, True, False, False),
        ("a,!", True, True, False, False),
        ("!,*", True, True, True, False),
        ("-", False, False, False, True),
    ],
)
def test_worker_modes(text: str, web: bool, a: bool, b: bool, transient: bool) -> None:
    mode = WorkerMode.parse(text)

    assert (mode.serving(), mode.serving("a"), mode.serving("b")) == (web, a, b)
    assert mode.transient is transient
    assert mode.unknown_topics({"a", "b", "c"}) == []


@pytest.mark.parametrize(
    "text",
    [
        *("-,a", "-,!", "-,", "!,", "*, ", "!,*,"),
        *(",", " , ", "a,,", "a,,b", ",a"),
        "a b",
        "a#",
        "é" * 200,
    ],
)
def test_bad_worker_modes(text: str) -> None:
    with pytest.raises(ConfigurationError):
        WorkerMode.parse(text)


def test_unknown_topics_are_refused_with_what_may_have_been_meant() -> None:
    mode = WorkerMode.parse("mails:sned,other,reports")

    assert mode.unknown_topics({"mails:send", "reports"}) == ["mails:sned", "other"]
    with pytest.raises(ConfigurationError) as caught:
        mode.require_known({"mails:send", "reports"})
    assert str(caught.value).splitlines() == [
        (
            "CLUSTER_KIT_WORKER_MODE names topic 'mails:sned', which no plugin serves; "
            "did you mean 'mails:send'?"
        ),
        (
            "CLUSTER_KIT_WORKER_MODE names topic 'other', which no plugin serves; "
            "known: mails:send, reports"
        ),
    ]
    mode.require_known(["mails:sned", "other", "reports"])


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ("", ()),
        ("orders.#=stream", (("orders.#", "stream"),)),
        (" a.* = sticky , b=c=stream ,", (("a.*", "sticky"), ("b=c", "stream"))),
        ({"a": "sticky", "#": "ephemeral"}, (("a", "sticky"), ("#", "ephemeral"))),
        ((("a", "stream"),), (("a", "stream"),)),
    ],
)
def test_transports_are_chosen_by_pattern(given: Any, chosen: object) -> None:
    assert Settings(pubsub={"transports": given}).pubsub.transports == chosen


def test_transports_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_PUBSUB__TRANSPORTS", "orders.#=stream")
    monkeypatch.setenv("CLUSTER_KIT_PUBSUB__TRANSPORT", "sticky")
    monkeypatch.setenv("CLUSTER_KIT_SYNC_MESSAGES__TRANSPORT", "stream")

    settings = Settings()

    assert settings.pubsub.transports == (("orders.#", "stream"),)
    assert (settings.pubsub.transport, settings.sync_messages.transport) == ("sticky", "stream")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("orders", "expected pattern=transport"),
        ("orders=durable", "a transport is ephemeral, sticky, stream, not 'durable'"),
        ("ord*=stream", "a wildcard stands alone between dots"),
        ({"a": None}, "a transport is"),
        ({1: "stream"}, "it must be a string"),
        (17, "expected patterns with transports, not int"),
        (["ab"], "expected pattern=transport"),
    ],
)
def test_transports_that_are_none_are_refused(given: Any, reason: str) -> None:
    with pytest.raises(SettingsError, match=rf"^pubsub\.transports: .*{re.escape(reason)}"):
        Settings(pubsub={"transports": given})


# --- URLs that cannot be meant ---------------------------------------------------------------

ENCODED = "user and password are percent-encoded: "
PLACE = "bad host or port: expected host or host:port, with a port from 1 to 65535"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("amqp://shop:s3cret@mq:abc/", PLACE),
        ("amqp://shop:s3cret@mq:99999/", PLACE),
        ("amqp://mq:0/", PLACE),
        ("amqp://mq-1,mq-2:x/", PLACE),
        ("amqp://mq-1,,mq-2/", PLACE),
        ("amqp://[::1/", PLACE),
        ("amqp://", PLACE),
        ("amqp://shop:s3c@ret@mq/", f"{ENCODED}'@' is written %40"),
        ("amqp://shop:s3c/ret@mq/", f"{ENCODED}'/' is written %2F"),
        ("amqp://shop:s3c#ret@mq/", f"{ENCODED}'#' is written %23"),
        ("amqp://shop:s3c?ret@mq/", f"{ENCODED}'?' is written %3F"),
        (
            "amqp://shop:s3c%ret@mq/",
            f"{ENCODED}'%' is written %25 where no two hexadecimal digits follow",
        ),
    ],
)
def test_a_wrong_server_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch, url: str, text: str
) -> None:
    assert problems(lambda: Settings(amqp_url=url)) == [f"amqp_url: {text}"]
    monkeypatch.setenv("CLUSTER_KIT_LOCKS__URL", url)
    assert problems(Settings) == [f"CLUSTER_KIT_LOCKS__URL: {text}"]


@pytest.mark.parametrize(
    "url",
    [
        "amqp://shop:p%40ss@mq-1,mq-2:5673/prod?heartbeat=10",
        "amqp://[::1]:5672/%2F",
        "redis://:secret@cache:6379/0",
        "redis+sentinel://:secret@s-1,s-2:26379/mymaster/0",
        "unix:///run/redis.sock",
        "memory://hub?path=/tmp/100%",
        "files://anything:goes@all#here",
    ],
)
def test_what_may_be_meant_is_taken(url: str) -> None:
    assert ServerUrl(url).reveal() == url


# --- what belongs together -------------------------------------------------------------------


def test_a_first_delay_above_the_longest_is_refused_where_it_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "initial_delay, 700, is above max_delay, 600"
    given = problems(lambda: Settings(event_queue={"retry": {"initial_delay": 700}}))
    assert given == [f"event_queue.retry.initial_delay: {text}"]

    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__RETRY__MAX_DELAY", "0.1")
    name = "CLUSTER_KIT_EVENT_QUEUE__RETRY__MAX_DELAY"
    assert problems(Settings) == [f"{name}: initial_delay, 0.5, is above max_delay, 0.1"]


# --- what needs no pydantic ------------------------------------------------------------------

SIMPLE = {"app": "shop", "amqp_url": URL, "redis_url": "redis://r", "instance_id": "one"}


@pytest.mark.parametrize("given", [(), ("app",), ("amqp_url", "redis_url"), tuple(SIMPLE)])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_what_is_read_without_pydantic_is_what_it_would_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: tuple[str, ...], by: str
) -> None:
    values: dict[str, Any] = {name: SIMPLE[name] for name in given}
    if by == "variable":
        for name, value in values.items():
            monkeypatch.setenv(f"CLUSTER_KIT_{name.upper()}", value)
        values = {}
    quick = Settings(**values)
    (tmp_path / ".env").touch()  # so it is not done without

    assert quick == Settings(**values)
    assert hash(quick) == hash(Settings(**values))


def test_most_starts_do_without_pydantic() -> None:
    program = (
        "import sys; from cluster_kit import Cluster, Settings\n"
        "async def pack(payload: dict[str, object]) -> None: ...\n"
        "cluster = Cluster(settings=Settings(redis_url='redis://r'))\n"
        "cluster.event_queue.subscribe('parcels', pack)\n"
        "print([name for name in sys.modules if name.startswith('pydantic')])"
    )
    environment = {**os.environ, "CLUSTER_KIT_APP": "shop", "CLUSTER_KIT_AMQP_URL": "amqp://mq"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_settings_may_be_part_of_the_settings_of_an_application() -> None:
    class Mine(BaseModel):
        kit: Settings

    assert Mine(kit=Settings(app="shop")).kit.app == "shop"
    made = Mine.model_validate({"kit": {"app": "shop", "event_queue": {"timeout": "3"}}}).kit
    assert (made.app, made.event_queue.timeout, made.locks) == ("shop", 3.0, Settings().locks)
