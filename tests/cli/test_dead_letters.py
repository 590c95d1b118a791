from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.message import DeadReason, Death, Delivery, Envelope, Reject
from cluster_kit.names import QueueName
from cluster_kit.testing.waiting import eventually
from tests.cli.support import Broker


@pytest.fixture
def filled(broker: Broker) -> Broker:
    """Three dead letters: one failed, one rejected, one that is no text."""

    async def work(cluster: Cluster) -> None:
        async def handle(payload: str, delivery: Delivery) -> None:
            if payload == "reject":
                raise Reject("customer\x1b[31m left\nfor good")
            text = f"cannot {payload}"
            raise LookupError(text)

        cluster.event_queue.subscribe("mails", handle)
        publish = cluster.event_queue.publish
        await publish("mails", "send ä", message_id="one", max_retries=1, headers={"trace": 7})
        await dead(cluster, 1)
        await publish("mails", "reject", message_id="two")
        await dead(cluster, 2)
        await bury_bytes(cluster)

    broker.work(work)
    return broker


async def dead(cluster: Cluster, count: int) -> None:
    await eventually(cluster.event_queue.dead_letters("mails").count, lambda found: found >= count)


async def bury_bytes(cluster: Cluster) -> None:
    """What a foreign client sent and nobody can decode."""
    adapter = cluster._capabilities._queue_adapter
    assert adapter is not None
    death = Death(reason=DeadReason.UNDECODABLE, error_text="the body is not JSON")
    envelope = Envelope(queue=QueueName("shop", "mails"), id="three", body=b"\xff\x00", death=death)
    await adapter.bury(dataclasses.replace(envelope, headers={"raw": "x"}), timeout=5)


def test_list(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "list", "mails")

    lines = outcome.out.splitlines()
    assert outcome.code == 0
    assert lines[0].split() == ["id", "reason", "attempts", "died", "(UTC)", "error"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["one", "failed", "2"],
        ["two", "rejected", "1"],
        ["three", "undecodable", "0"],
    ]
    assert lines[1].endswith("LookupError: cannot send ä")
    assert lines[2].endswith("customer\\x1b[31m left for good")


def test_list_the_oldest_as_json(filled: Broker) -> None:
    (letter,) = filled.command("dead-letters", "list", "mails", "--limit", "1", "--json").json

    assert letter.pop("published_at") <= letter.pop("died_at")
    assert letter.pop("instance_id")
    assert letter.pop("error_type").endswith("LookupError")
    assert letter == {
        "id": "one",
        "channel": "mails",
        "reason": "failed",
        "error_text": "cannot send ä",
        "attempts": 2,
        "headers": {"trace": 7},
        "payload": "send ä",
        "body": '"send ä"',
        "body_base64": None,
    }


def test_show(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "show", "mails", "one")

    shown = dict(line.split(":", 1) for line in outcome.out.splitlines())
    assert {name: text.strip() for name, text in shown.items()}["body"] == '"send ä"'
    assert shown["reason"].strip() == "failed"
    assert shown["headers"].strip() == '{"trace": 7}'
    assert filled.command("dead-letters", "show", "mails", "two", "--json").json["id"] == "two"


def test_show_lets_no_foreign_text_steer_the_terminal(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "show", "mails", "two")

    assert "\x1b" not in outcome.out
    assert "\\x1b[31m" in outcome.out


def test_show_an_unknown_one(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "show", "mails", "four")

    line = "cluster-kit: no dead letter 'four' in 'mails'\n"
    assert (outcome.code, outcome.out, outcome.err) == (1, "", line)


@pytest.mark.parametrize("command", ["list", "replay", "export"])
def test_an_unknown_channel(filled: Broker, command: str) -> None:
    outcome = filled.command("dead-letters", command, "mials")

    line = "cluster-kit: shop has no queue for channel 'mials'\n"
    assert (outcome.code, outcome.out, outcome.err) == (1, "", line)


def test_export_loses_nothing(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "export", "mails")

    letters: list[dict[str, Any]] = [json.loads(line) for line in outcome.out.splitlines()]
    assert [letter["id"] for letter in letters] == ["one", "two", "three"]
    assert [letter["body"] for letter in letters] == ['"send ä"', '"reject"', None]
    assert letters[2]["body_base64"] == "/wA="
    assert letters[2]["payload"] is None


def test_replay_some(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "replay", "mails", "two", "one", "--rate", "1000")

    assert (outcome.code, outcome.out) == (0, "replayed 2\n")
    assert filled.command("queues", "--json").json[0] == {
        "channel": "mails",
        "ready": 2,
        "dead": 1,
        "consumers": 0,
    }


def test_replay_all_as_json(filled: Broker) -> None:
    assert filled.command("dead-letters", "replay", "mails", "--json").json == {"replayed": 3}


def test_replay_says_when_some_are_not_there(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "replay", "mails", "one", "four")

    line = "cluster-kit: 1 of 2 ids are not among the dead letters\n"
    assert (outcome.code, outcome.out, outcome.err) == (1, "replayed 1\n", line)


def test_discard_some(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "discard", "mails", "two", "--yes")

    assert (outcome.code, outcome.out) == (0, "discarded 1\n")
    left = filled.command("dead-letters", "list", "mails", "--json").json
    assert [letter["id"] for letter in left] == ["one", "three"]


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 3), ("", 1, 3)])
def test_discard_asks_a_person(
    filled: Broker, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: int
) -> None:
    monkeypatch.setattr("cluster_kit.cli.dead_letters._is_person", lambda: True)

    outcome = filled.command("dead-letters", "discard", "mails", stdin=answer)

    assert outcome.code == code
    assert "Discard all dead letters of 'mails' for good?" in outcome.err
    assert len(filled.command("dead-letters", "list", "mails", "--json").json) == left


def test_discard_does_not_ask_a_program(filled: Broker) -> None:
    outcome = filled.command("dead-letters", "discard", "mails", "one", "two", stdin="y\n")

    one = filled.command("dead-letters", "discard", "mails", "one")
    assert "this would discard 1 dead letter of 'mails'" in one.err
    line = "cluster-kit: this would discard 2 dead letters of 'mails'; confirm with --yes\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", line)
    assert len(filled.command("dead-letters", "list", "mails", "--json").json) == 3
