from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from cluster_kit.deadlines import Deadlines
from cluster_kit.event_queue.ledger import (
    FORGOTTEN_AT_ONCE,
    REMEMBERED,
    REMEMBERED_SECONDS,
    Ledger,
)
from cluster_kit.event_queue.run import Place, Run
from cluster_kit.message import Envelope
from cluster_kit.names import QueueName
from cluster_kit.testing.clock import FakeClock

MAILS, REPORTS = QueueName("shop", "mails"), QueueName("shop", "reports")


@dataclass
class Delivered:
    """A delivery nobody settles."""

    envelope: Envelope
    copy_id: str = "copy"
    redeliveries: int = 0
    give_back_counts: bool = False
    lost: bool = False

    @property
    def redelivered(self) -> bool:
        return self.redeliveries > 0

    async def ack(self) -> None: ...

    async def give_back(self) -> None: ...


def task(id_: str = "1", queue: QueueName = MAILS) -> Envelope:
    return Envelope(queue=queue, id=id_, body=b"{}")


def delivered(
    id_: str = "1", copy_id: str = "copy", queue: QueueName = MAILS, redeliveries: int = 0
) -> Delivered:
    return Delivered(task(id_, queue), copy_id, redeliveries)


def run(delivery: Delivered) -> Run:
    place = Place(
        grace=5,
        deadlines=Deadlines(),
        on_release=lambda: None,
        torn_down=lambda: False,
        stopping=lambda: False,
    )
    return Run(delivery, place, timeout=60)


@pytest.fixture
def ledger(fake_clock: FakeClock) -> Ledger:
    return Ledger(fake_clock)


def test_a_run_is_known_by_its_copy_and_its_id_until_it_ends(ledger: Ledger) -> None:
    delivery = delivered()
    one = run(delivery)
    assert ledger.same_copy(delivery) is ledger.same_id(delivery.envelope) is None

    ledger.begin(one)
    assert ledger.same_copy(delivered()) is one
    assert ledger.same_id(task()) is one

    ledger.settling(one)
    assert ledger.same_copy(delivered()) is one
    assert ledger.same_id(task()) is None

    ledger.end(one)
    assert ledger.same_copy(delivered()) is None


def test_what_runs_or_is_remembered_is_not_new(ledger: Ledger) -> None:
    assert ledger.is_new(delivered())
    ledger.begin(one := run(delivered()))
    assert not ledger.is_new(delivered(copy_id="other"))
    ledger.settling(one)
    assert not ledger.is_new(delivered())
    ledger.end(one)
    assert ledger.is_new(delivered())

    ledger.settled(one.received, ack_lost=False)
    assert not ledger.is_new(delivered())
    ledger.done(task("2"))
    assert not ledger.is_new(delivered("2"))
    assert ledger.is_new(delivered("2", queue=REPORTS))


def test_queues_do_not_share_ids_or_copies(ledger: Ledger) -> None:
    ledger.begin(run(delivered()))
    ledger.done(task("2"))

    assert ledger.same_copy(delivered(queue=REPORTS)) is None
    assert ledger.same_id(task(queue=REPORTS)) is None
    assert not ledger.is_done(task("2", REPORTS))


def test_a_retry_that_begins_while_its_predecessor_settles_is_not_forgotten(ledger: Ledger) -> None:
    first, second = run(delivered(copy_id="a")), run(delivered(copy_id="b"))
    ledger.begin(first)
    ledger.settling(first)
    ledger.begin(second)

    ledger.end(first)

    assert ledger.same_id(task()) is second
    assert ledger.same_copy(delivered(copy_id="b")) is second
    assert ledger.same_copy(delivered(copy_id="a")) is None


def test_copies_without_identity_are_never_mistaken_for_one_another(ledger: Ledger) -> None:
    nameless = run(delivered("1", copy_id=""))
    ledger.begin(nameless)
    ledger.settled(nameless.received, ack_lost=True)

    assert ledger.same_copy(delivered("2", copy_id="")) is None
    assert not ledger.only_ack_missing(delivered("2", copy_id=""))
    ledger.end(nameless)
    assert ledger.same_id(task("1")) is None


@pytest.mark.asyncio
async def test_a_finished_id_is_remembered_for_five_minutes(
    ledger: Ledger, fake_clock: FakeClock
) -> None:
    ledger.done(task())
    assert ledger.is_done(task())
    assert not ledger.is_done(task("2"))

    await fake_clock.advance(REMEMBERED_SECONDS)
    assert ledger.is_done(task())
    await fake_clock.advance(1)
    assert not ledger.is_done(task())

    ledger.done(task())
    assert ledger.is_done(task())


def test_a_clock_set_back_does_not_forget(ledger: Ledger, fake_clock: FakeClock) -> None:
    ledger.done(task())
    fake_clock.shift_wall(-10 * REMEMBERED_SECONDS)

    assert ledger.is_done(task())


def test_memory_is_bounded_and_the_oldest_goes_first(ledger: Ledger) -> None:
    ledger.done(task("0"))
    for number in range(1, REMEMBERED):
        ledger.done(task(str(number)))
    ledger.done(task("0"))  # new again
    for number in range(FORGOTTEN_AT_ONCE - 1):
        ledger.done(task(f"later {number}"))
    assert ledger.is_done(task("1"))
    ledger.done(task("last"))

    assert ledger.is_done(task("0"))
    assert not ledger.is_done(task("1"))
    assert not ledger.is_done(task(str(FORGOTTEN_AT_ONCE)))
    assert ledger.is_done(task(str(FORGOTTEN_AT_ONCE + 1)))


def test_a_copy_that_is_settled_again_is_the_newest(ledger: Ledger) -> None:
    for number in range(REMEMBERED):
        ledger.settled(delivered(copy_id=str(number)), ack_lost=True)
    ledger.settled(delivered(copy_id="0"), ack_lost=True)
    for number in range(FORGOTTEN_AT_ONCE):
        ledger.settled(delivered(copy_id=f"later {number}"), ack_lost=True)

    assert ledger.only_ack_missing(delivered(copy_id="0"))
    assert not ledger.only_ack_missing(delivered(copy_id="1"))


def test_a_lost_acknowledgement_is_remembered_until_it_is_made(ledger: Ledger) -> None:
    one = run(delivered())
    ledger.settled(one.received, ack_lost=True)

    assert ledger.only_ack_missing(delivered())
    assert not ledger.only_ack_missing(delivered(copy_id="other"))

    ledger.acked(delivered())
    ledger.acked(delivered())
    ledger.acked(delivered(copy_id="other"))
    assert not ledger.only_ack_missing(delivered())
    assert ledger.only_ack_missing(delivered(redeliveries=1))
    assert not ledger.only_ack_missing(delivered(copy_id="other", redeliveries=1))


def test_a_sent_acknowledgement_that_got_lost_shows_when_the_copy_comes_again(
    ledger: Ledger,
) -> None:
    ledger.settled(delivered(), ack_lost=False)

    assert ledger.only_ack_missing(delivered(redeliveries=1))
    assert not ledger.only_ack_missing(delivered())  # another message under the same id


def test_lost_acknowledgements_are_bounded_too(ledger: Ledger) -> None:
    for number in range(REMEMBERED + FORGOTTEN_AT_ONCE):
        ledger.settled(delivered(copy_id=str(number)), ack_lost=True)

    assert not ledger.only_ack_missing(delivered(copy_id="0"))
    assert not ledger.only_ack_missing(delivered(copy_id=str(FORGOTTEN_AT_ONCE - 1)))
    assert ledger.only_ack_missing(delivered(copy_id=str(FORGOTTEN_AT_ONCE)))


def test_a_fresh_copy_is_that_of_the_attempt_it_was_made_of_though_the_run_went_on() -> None:
    began, ledger = run(delivered(copy_id="worn")), Ledger(FakeClock())
    ledger.begin(began)
    began.begin_again()
    began.renewed = began.envelope.attempt
    began.begin_again()
    began.stuck = True  # its next attempt is stored: no older copy but its own is for it
    fresh = delivered(copy_id="fresh")
    fresh.envelope.attempt = 2

    assert not began.is_for(delivered(copy_id="another"))
    assert began.is_for(fresh)

    ledger.adopt(began, fresh)
    assert ledger.same_copy(fresh) is began
    assert not began.is_for(delivered(copy_id="late", redeliveries=1))


def test_the_next_attempt_in_place_has_a_signal_of_its_own_and_is_otherwise_the_same_task() -> None:
    began = run(delivered(redeliveries=1))
    before, signal = began.envelope, began.signal
    signal.abort("timeout")

    began.begin_again()

    assert began.running
    assert not began.signal.aborted
    assert dataclasses.replace(before, attempt=2) == began.envelope
    assert (before.attempt, began.received.envelope.attempt) == (1, 1)
