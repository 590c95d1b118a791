from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.broadcast import Broadcast
from cluster_kit.pubsub.numbering import REPEATED, Follower, Numbering

MESSAGE = Broadcast(realm="pubsub", channel="a", id="1", body=b"1", origin="one", epoch="e")


def seen(follower: Follower, *numbers: int, epoch: str = "e", channel: str = "a") -> list[int]:
    messages = [replace(MESSAGE, seq=n, epoch=epoch, channel=channel) for n in numbers]
    return [follower.missing(message) for message in messages]


def test_numbers_count_from_one_by_channel() -> None:
    numbering = Numbering()
    numbers = [numbering.next(channel)[1] for channel in "abaab"]

    assert numbers == [1, 1, 2, 3, 2]
    assert numbering.next("a")[0] == numbering.next("a")[0]
    assert numbering.next("a")[0] != numbering.next("b")[0]


@given(st.lists(st.booleans(), max_size=30), st.randoms(use_true_random=False))
def test_what_was_not_sent_leaves_no_hole_once_nothing_is_under_way(
    outcomes: list[bool], random: object
) -> None:
    numbering = Numbering()
    taken = [(numbering.next("a"), sent) for sent in outcomes]
    unsent = [number for number, sent in taken if not sent]
    random.shuffle(unsent)  # type: ignore[attr-defined]
    for epoch, seq in unsent:
        numbering.give_back("a", epoch, seq)

    sent = [number for (_, number), success in taken if success]
    assert numbering.next("a")[1] == max(sent, default=0) + 1


def test_a_forgotten_channel_begins_a_new_epoch_and_takes_nothing_back() -> None:
    numbering = Numbering(limit=2)
    epoch, seq = numbering.next("a")
    numbering.next("b")
    numbering.next("c")

    again, number = numbering.next("a")
    numbering.give_back("a", epoch, seq)

    assert (number, numbering.next("a")[1]) == (1, 2)
    assert again != epoch


@given(st.sets(st.integers(min_value=1, max_value=30), min_size=1), st.data())
def test_every_hole_is_found_once_and_every_repeat(arriving: set[int], data: st.DataObject) -> None:
    follower, expected = Follower(), 0
    for position, number in enumerate(sorted(arriving)):
        missing = number - expected - 1 if position else 0
        assert seen(follower, number) == [missing]
        expected = number
        earlier = data.draw(st.integers(min_value=1, max_value=number))
        assert seen(follower, earlier) == [REPEATED]


def test_a_publisher_that_begins_anew_is_followed_from_its_first_number() -> None:
    follower = Follower()

    assert seen(follower, 7, 8) == [0, 0]
    assert seen(follower, 1, 2, epoch="f") == [0, 0]
    assert seen(follower, 3, epoch="g") == [2]


def test_an_excused_hole_is_no_news_but_the_next_one_is() -> None:
    follower = Follower()
    seen(follower, 1)
    seen(follower, 1, channel="b")

    follower.excuse(lambda channel: channel == "a")

    assert seen(follower, 5, 7) == [0, 1]
    assert seen(follower, 5, channel="b") == [3]


def test_an_excuse_is_used_up_by_a_message_without_a_hole() -> None:
    follower = Follower()
    seen(follower, 1)
    follower.excuse(lambda _: True)

    assert seen(follower, 2, 4) == [0, 1]


def test_repeats_are_found_after_an_excuse_too() -> None:
    follower = Follower()
    seen(follower, 1, 2)
    follower.excuse(lambda _: True)

    assert seen(follower, 2, 5) == [REPEATED, 0]


def test_channels_that_nobody_wants_any_more_are_forgotten() -> None:
    follower = Follower()
    seen(follower, 1)
    follower.keep(lambda _: False)

    assert seen(follower, 9) == [0]


def test_messages_without_numbers_are_taken_as_they_are() -> None:
    assert seen(Follower(), 0, 0, 0) == [0, 0, 0]


def test_a_follower_forgets_the_longest_silent_publisher() -> None:
    follower = Follower(limit=2)
    seen(follower, 1)
    seen(follower, 1, channel="b")
    seen(follower, 2)
    seen(follower, 1, channel="c")

    assert seen(follower, 5) == [2]
    assert seen(follower, 5, channel="b") == [0]
