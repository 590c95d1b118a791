from __future__ import annotations

import os
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.errors import InvalidNameError
from cluster_kit.names import (
    QueueName,
    check_app,
    check_channel,
    check_message_id,
    check_name,
    check_queue,
    check_topic,
    new_id,
)

LEGAL = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="*#"), min_size=1, max_size=50
)


@pytest.mark.parametrize(
    "name", ["mails", "mails.send", "a-b_c:d/e", "größe", "作業", "x" * 200, "é" * 100, "🙂"]
)
def test_legal_names_are_returned_as_they_are(name: str) -> None:
    assert check_name("channel", name) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "bad channel '': it is empty"),
        (None, "bad channel None: it must be a string"),
        (b"mails", "bad channel b'mails': it must be a string"),
        ("two words", "bad channel 'two words': spaces and control characters are not allowed"),
        ("tab\t", r"bad channel 'tab\t': spaces and control characters are not allowed"),
        ("nul\0", r"bad channel 'nul\x00': spaces and control characters are not allowed"),
        ("nbsp\u00a0", r"bad channel 'nbsp\xa0': spaces and control characters are not allowed"),
        ("join\u200d", r"bad channel 'join\u200d': spaces and control characters are not allowed"),
        ("a.*", "bad channel 'a.*': '*' and '#' are wildcards of pub/sub subscriptions"),
        ("#", "bad channel '#': '*' and '#' are wildcards of pub/sub subscriptions"),
        ("\ud800", r"bad channel '\ud800': it is not valid Unicode"),
        ("x" * 201, f"bad channel '{'x' * 78}…: it has 201 bytes, the limit is 200"),
        ("é" * 101, f"bad channel '{'é' * 78}…: it has 202 bytes, the limit is 200"),
    ],
)
def test_a_bad_name_is_refused_with_the_reason(name: object, text: str) -> None:
    with pytest.raises(InvalidNameError, match=f"^{re.escape(text)}$") as caught:
        check_name("channel", name)

    assert (caught.value.kind, caught.value.name) == ("channel", name)


def test_names_that_are_no_channels_have_nothing_to_do_with_wildcards() -> None:
    for kind in ("lock key", "cache key", "cache tag"):
        with pytest.raises(InvalidNameError) as caught:
            check_name(kind, "a*")
        assert str(caught.value) == f"bad {kind} 'a*': '*' and '#' are not allowed"


def test_an_app_name_is_shorter_so_that_every_queue_name_fits_amqp() -> None:
    app, channel = "a" * 40, "c" * 200

    assert check_app(app) == app
    assert len(QueueName(app, channel).dead.encode()) <= 255
    with pytest.raises(InvalidNameError, match=r"^bad app name 'a+': it has 41 bytes, the limit"):
        check_app("a" * 41)


@given(name=LEGAL)
def test_printable_names_without_wildcards_are_legal(name: str) -> None:
    assert check_name("channel", name) == name


@given(name=st.text() | st.binary() | st.integers())
def test_every_name_is_taken_unchanged_or_refused(name: object) -> None:
    try:
        checked = check_name("channel", name)
    except InvalidNameError as exc:
        assert exc.reason  # noqa: PT017 - either way is right
    else:
        assert checked == name
        assert 1 <= len(checked.encode()) <= 200
        assert not set(checked) & set("*# \t\r\n\0")


def test_no_channel_can_be_the_dead_letters_of_another() -> None:
    assert check_channel("mails.dead.letters") == "mails.dead.letters"
    for name in ("dead", "mails.dead", ".dead", QueueName(None, "mails").dead):
        text = f"^bad channel {name!r}: names whose last part is 'dead' belong to the dead letters$"
        with pytest.raises(InvalidNameError, match=text):
            check_channel(name)


def test_message_ids_may_have_wildcards() -> None:
    assert check_message_id("order#1*") == "order#1*"


@pytest.mark.parametrize(
    ("message_id", "reason"),
    [
        ("", "it is empty"),
        (7, "it must be a string"),
        ("a b", "spaces and control characters are not allowed"),
        ("#" * 201, "it has 201 bytes, the limit is 200"),
    ],
)
def test_a_bad_message_id_is_refused_with_the_reason(message_id: object, reason: str) -> None:
    with pytest.raises(InvalidNameError, match=f"^bad message id .*: {reason}$"):
        check_message_id(message_id)


def test_new_ids_are_legal_and_differ() -> None:
    ids = {new_id() for _ in range(1000)}
    assert {(uuid.UUID(id_).version, uuid.UUID(id_).variant) for id_ in ids} == {(4, uuid.RFC_4122)}

    assert len(ids) == 1000
    assert {check_message_id(one) for one in ids} == ids


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_fork_makes_other_ids_than_its_parent() -> None:
    new_id()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, " ".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    of_child = set(os.read(reading, 10_000).decode().split())

    assert len(of_child) == 100
    assert of_child.isdisjoint(new_id() for _ in range(200))


def test_queue_names() -> None:
    own, shared = QueueName("shop", "mails.send"), QueueName(None, "audit")

    assert (own.full, own.dead) == ("shop.mails.send", "shop.mails.send.dead")
    assert (shared.full, shared.dead) == ("audit", "audit.dead")
    assert (str(own), str(shared)) == (own.full, shared.full)


@pytest.mark.parametrize("name", ["shop.eu", ".shop", "shop.", "."])
def test_an_app_name_has_no_dot_so_that_it_ends_where_the_channel_begins(name: str) -> None:
    text = f"^bad app name {re.escape(repr(name))}: '.' separates the app from the channel$"
    with pytest.raises(InvalidNameError, match=text):
        check_app(name)


@given(app=LEGAL, other=LEGAL, channel=LEGAL, other_channel=LEGAL)
def test_applications_do_not_share_prefixed_queues(
    app: str, other: str, channel: str, other_channel: str
) -> None:
    try:
        check_app(app), check_app(other)
    except InvalidNameError:
        return
    mine, theirs = QueueName(app, channel), QueueName(other, other_channel)

    assert (mine.full == theirs.full) == (mine == theirs)


@pytest.mark.parametrize("queue", [QueueName(None, "ck.v1.dead-end"), QueueName("ck", "v1.mails")])
def test_no_channel_can_be_one_of_the_librarys_helpers(queue: QueueName) -> None:
    text = r"names that begin with ck\.v1\. belong to the library"
    with pytest.raises(InvalidNameError, match=text):
        check_queue(queue)


def test_a_topic_is_a_name_without_a_meaning_in_the_worker_mode() -> None:
    assert check_topic("mails:send") == "mails:send"
    for bad in ("", "a b", "a,b", "!", "*", "-", ["mails"], None):
        with pytest.raises(InvalidNameError, match=r"^bad topic "):
            check_topic(bad)
