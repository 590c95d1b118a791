from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.message import Delivery
from cluster_kit.testing import waiting
from tests.cli.support import Broker, Outcome, eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def broker(rabbitmq: str) -> Broker:
    return Broker(rabbitmq)


def fail_all(broker: Broker, channel: str, count: int, *, shared: bool = False) -> None:
    """Let every task of a channel die."""

    async def work(cluster: Cluster) -> None:
        async def handle(payload: object, delivery: Delivery) -> None:
            text = f"cannot {payload}"
            raise LookupError(text)

        cluster.event_queue.subscribe(channel, handle, max_retries=0, shared=shared)
        dead_letters = cluster.event_queue.dead_letters(channel, shared=shared)
        await waiting.eventually(dead_letters.count, lambda found: found == count)

    broker.work(work)


def queues(broker: Broker) -> dict[str, tuple[int, int, int]]:
    outcome = broker.command("queues", "--json")
    return {q["channel"]: (q["ready"], q["dead"], q["consumers"]) for q in outcome.json}


def until_queues(broker: Broker, expected: dict[str, tuple[int, int, int]]) -> None:
    # A quorum queue counts what it holds a moment after it has taken it.
    eventually(lambda: queues(broker) == expected)


def test_from_publish_to_dead_letter_and_back(broker: Broker) -> None:
    for number in (1, 2, 3):
        outcome = broker.command("publish", "mails.send", str(number), "--id", f"mail-{number}")
        assert (outcome.code, outcome.out, outcome.err) == (0, f"mail-{number}\n", "")
    until_queues(broker, {"mails.send": (3, 0, 0)})

    fail_all(broker, "mails.send", 3)
    letters = broker.command("dead-letters", "list", "mails.send", "--json").json
    assert [(x["id"], x["reason"], x["error_text"]) for x in letters] == [
        (f"mail-{n}", "failed", f"cannot {n}") for n in (1, 2, 3)
    ]
    assert (
        broker.command("dead-letters", "show", "mails.send", "mail-2", "--json").json["body"] == "2"
    )

    replayed = broker.command("dead-letters", "replay", "mails.send", "mail-2", "--rate", "100")
    assert (replayed.code, replayed.out) == (0, "replayed 1\n")
    until_queues(broker, {"mails.send": (1, 2, 0)})

    exported = broker.command("dead-letters", "export", "mails.send").out.splitlines()
    assert [json.loads(line)["id"] for line in exported] == ["mail-1", "mail-3"]

    discarded = broker.command("dead-letters", "discard", "mails.send", "--yes", "--json")
    assert discarded.json == {"discarded": 2}
    until_queues(broker, {"mails.send": (1, 0, 0)})


def test_queues_as_a_table(broker: Broker) -> None:
    broker.command("publish", "reports", "1")
    until_queues(broker, {"reports": (1, 0, 0)})

    assert (
        broker.command("queues").out
        == "channel  ready  dead  consumers\nreports      1     0          0\n"
    )


def test_shared_queues_belong_to_nobody(broker: Broker) -> None:
    broker.command("publish", "audit", "1", "--shared", "--id", "entry")
    fail_all(broker, "audit", 1, shared=True)

    own: Outcome = broker.command("queues", "--json")
    assert (own.code, own.out) == (1, "")
    assert "has no queues" in own.err
    shown: Outcome = broker.command("dead-letters", "list", "audit", "--shared", "--json")
    assert [letter["id"] for letter in shown.json] == ["entry"]
    assert broker.command("dead-letters", "list", "audit").code == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace("@", "wrong@", 1), "ACCESS_REFUSED"),
        (lambda url: f"{url.rpartition('/')[0]}/no-such-vhost", "no-such-vhost"),
    ],
)
def test_a_wrong_address_is_one_line(
    broker: Broker, change: Callable[[str], str], reason: str
) -> None:
    outcome = Broker(change(broker.url)).command("queues")

    assert (outcome.code, outcome.out) == (1, "")
    assert re.match(r"cluster-kit: .*: cannot connect to amqp://", outcome.err)
    assert reason in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert "wrong@" not in outcome.err
