from __future__ import annotations

import asyncio

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.message import Delivery
from tests.cli.support import PATIENCE, Broker


def take(broker: Broker, channel: str, count: int = 1) -> list[tuple[object, Delivery]]:
    """Run `count` tasks of a channel and return what the handler was given."""
    taken: list[tuple[object, Delivery]] = []

    async def work(cluster: Cluster) -> None:
        enough = asyncio.Event()

        async def handle(payload: object, delivery: Delivery) -> None:
            taken.append((payload, delivery))
            if len(taken) == count:
                enough.set()

        cluster.event_queue.subscribe(channel, handle)
        async with asyncio.timeout(PATIENCE):
            await enough.wait()

    broker.work(work)
    return taken


def test_publish_prints_the_id(broker: Broker) -> None:
    outcome = broker.command("publish", "mails", '{"to": "ä"}')

    ((payload, delivery),) = take(broker, "mails")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{delivery.id}\n", "")
    assert payload == {"to": "ä"}


def test_publish_with_every_option(broker: Broker) -> None:
    outcome = broker.command(
        *("publish", "mails", "[1, null]", "--id", "order-7", "--max-retries", "0"),
        *("--header", "trace=a=b", "--header", "empty=", "--timeout", "7.5", "--delay", "0.01"),
        *("--ttl", "60", "--json"),
    )

    assert outcome.json == {"channel": "mails", "id": "order-7"}
    ((payload, delivery),) = take(broker, "mails")
    assert payload == [1, None]
    assert (delivery.id, delivery.max_retries) == ("order-7", 0)
    assert delivery.headers == {"trace": "a=b", "empty": ""}


def test_publish_from_standard_input(broker: Broker) -> None:
    assert broker.command("publish", "mails", "-", stdin='{"big": "one"}\n').code == 0

    assert take(broker, "mails")[0][0] == {"big": "one"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"{", "standard input is not JSON: Expecting property name"),
        (b"", "standard input is not JSON: Expecting value: line 1 column 1"),
        (b"\xff", "standard input is not JSON: 'utf-8' codec can't decode byte"),
        (b"[" * 100_000, "standard input is not JSON: "),
    ],
)
def test_bad_standard_input(broker: Broker, text: bytes, line: str) -> None:
    outcome = broker.command("publish", "mails", "-", stdin=text)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"cluster-kit: {line}")


def test_what_the_library_refuses_is_one_line(broker: Broker) -> None:
    outcome = broker.command("publish", "mails", "-", stdin=f'"{"x" * 9_000_000}"')

    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("cluster-kit: ")
    assert len(outcome.err.splitlines()) == 1


def test_queues(broker: Broker) -> None:
    broker.command("publish", "mails.send", "1")
    broker.command("publish", "mails.send", "1")
    broker.command("publish", "reports", "1", "--ttl", "0.001")
    broker.command("publish", "everybody", "1", "--shared")

    outcome = broker.command("queues")

    assert outcome.out.splitlines() == [
        "channel     ready  dead  consumers",
        "mails.send      2     0          0",
        "reports         0     1          0",
    ]
    assert broker.command("queues", "--json").json == [
        {"channel": "mails.send", "ready": 2, "dead": 0, "consumers": 0},
        {"channel": "reports", "ready": 0, "dead": 1, "consumers": 0},
    ]


def test_no_queues(broker: Broker) -> None:
    for options in ((), ("--json",)):
        outcome = broker.command("queues", *options)
        line = "cluster-kit: shop has no queues\n"
        assert (outcome.code, outcome.out, outcome.err) == (1, "", line)


def test_no_queues_of_a_misspelt_application(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTER_KIT_APP", "shops")

    line = "cluster-kit: shop has no queues; did you mean 'shops'?\n"
    assert broker.command("queues").err == line


def test_a_command_needs_no_part_in_the_work(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTER_KIT_WORKER_MODE", "some:topic")
    monkeypatch.setenv("CLUSTER_KIT_INSTANCE_ID", "the-worker")

    assert broker.command("publish", "mails", "1").code == 0
