from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.broadcast import Broadcast
from cluster_kit.clock import SystemClock
from cluster_kit.pubsub.following import MAX_EPOCHS, MAX_HOLES, REPEATED, Follower
from cluster_kit.pubsub.numbering import Numbering, incarnation_of
from cluster_kit.testing.clock import FakeClock

MESSAGE = Broadcast(realm="pubsub", channel="a", id="1", body=b"1", origin="one", epoch="e")


def seen(follower: Follower, *numbers: int, epoch: str = "e", channel: str = "a") -> list[int]:
    messages = [replace(MESSAGE, seq=n, epoch=epoch, channel=channel) for n in numbers]
    return [follower.missing(message) for message in messages]


def test_numbers_count_from_one_by_channel() -> None:
    numbering = Numbering("one", SystemClock())
    numbers = [numbering.next(channel).seq for channel in "abaab"]

    assert numbers == [1, 1, 2, 3, 2]
    assert numbering.next("a").epoch == numbering.next("a").epoch


def test_an_epoch_names_the_process() -> None:
    numbering, other = Numbering("one", SystemClock()), Numbering("one", SystemClock())

    assert {incarnation_of(numbering.next(c).epoch) for c in "ab"} == {numbering.incarnation}
    assert other.incarnation != numbering.incarnation


@pytest.mark.asyncio
async def test_a_number_says_how_long_ago_the_one_before_was_given() -> None:
    clock = FakeClock()
    numbering = Numbering("one", clock)
    first = numbering.next("a")
    await clock.advance(2.5)
    second = numbering.next("a")
    numbering.give_back("a", second)
    await clock.advance(1.5)

    assert (first.after, second.after, numbering.next("b").after) == (0.0, 2.5, 0.0)
    assert numbering.next("a") == (first.epoch, 2, 1.5)


@given(st.lists(st.booleans(), max_size=30), st.randoms(use_true_random=False))
def test_what_was_not_sent_leaves_no_hole_once_nothing_is_under_way(
    outcomes: list[bool], random: object
) -> None:
    numbering = Numbering("one", SystemClock())
    taken = [(numbering.next("a"), sent) for sent in outcomes]
    unsent = [number for number, sent in taken if not sent]
    random.shuffle(unsent)  # type: ignore[attr-defined]
    for number in unsent:
        numbering.give_back("a", number)

    sent = [number.seq for number, success in taken if success]
    assert numbering.next("a").seq == max(sent, default=0) + 1


def test_numbers_that_stay_holes_are_forgotten() -> None:
    numbering = Numbering("one", SystemClock())
    for _ in range(100):
        unsent, sent = numbering.next("a"), numbering.next("a")
        numbering.give_back("a", unsent)
        numbering.used("a", sent)
    last = numbering.next("a")
    numbering.give_back("a", last)

    assert numbering._counters["a"].returned == set()
    assert numbering.next("a").seq == last.seq == 201


def test_a_forgotten_channel_begins_a_new_epoch_and_takes_nothing_back() -> None:
    numbering = Numbering("one", SystemClock(), limit=2)
    first = numbering.next("a")
    numbering.next("b")
    numbering.next("c")

    again = numbering.next("a")
    numbering.give_back("a", first)

    assert (again.seq, numbering.next("a").seq) == (1, 2)
    assert again.epoch != first.epoch


@given(st.sets(st.integers(min_value=1, max_value=30), min_size=1), st.data())
def test_every_hole_is_found_once_and_every_repeat(arriving: set[int], data: st.DataObject) -> None:
    follower, expected = Follower(), 0
    for position, number in enumerate(sorted(arriving)):
        missing = number - expected - 1 if position else 0
        assert seen(follower, number) == [missing]
        expected = number
        earlier = data.draw(st.sampled_from(sorted(n for n in arriving if n <= number)))
        assert seen(follower, earlier) == [REPEATED]


def test_a_publisher_that_begins_anew_is_followed_from_its_first_number() -> None:
    follower = Follower()

    assert seen(follower, 7, 8) == [0, 0]
    assert seen(follower, 1, 2, epoch="f") == [0, 0]
    assert seen(follower, 3, epoch="g") == [2]


def test_two_processes_under_one_name_are_followed_apart() -> None:
    follower = Follower()
    numbers = [seen(follower, n, epoch=epoch)[0] for n in range(1, 6) for epoch in "ef"]

    assert numbers == [0] * 10
    assert [seen(follower, 7, epoch="e"), seen(follower, 6, epoch="f")] == [[1], [0]]


def test_one_wrong_number_is_a_gap_and_the_real_ones_are_followed_on() -> None:
    follower = Follower()
    seen(follower, 1, 2)

    assert seen(follower, 2**62) == [2**62 - 3]
    assert seen(follower, 3, 4, 5) == [0, 0, 0]
    assert seen(follower, 4, 2**62) == [REPEATED, REPEATED]
    assert seen(follower, 8, 9) == [2, 0]


@given(st.lists(st.integers(min_value=1, max_value=2**63 - 1), max_size=2 * MAX_HOLES))
def test_no_wrong_numbers_take_a_real_one_for_a_repeat(wrong: list[int]) -> None:
    follower, real = Follower(), 1000
    seen(follower, real)
    for number in wrong:
        seen(follower, number)
        real += 1
        if real not in wrong:
            assert seen(follower, real) != [REPEATED]


def test_a_publisher_whose_first_number_is_wrong_is_heard() -> None:
    assert seen(Follower(), 2**62, 7, 8, 7) == [0, 6, 0, REPEATED]


def test_a_number_that_was_passed_over_is_no_repeat() -> None:
    follower = Follower()

    assert seen(follower, 1, 5, 2, 4, 3, 6) == [0, 3, 0, 1, 0, 0]
    assert seen(follower, 3, 4) == [REPEATED, REPEATED]


def test_wrong_epochs_cost_one_gap_each_and_do_not_gather() -> None:
    follower = Follower()
    seen(follower, 1)
    for number in range(3 * MAX_EPOCHS):
        assert seen(follower, 5, epoch=f"wrong {number}") == [4]
        assert seen(follower, number + 2) == [0]

    [epochs] = follower._lines.values()
    assert len(epochs) == MAX_EPOCHS


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
