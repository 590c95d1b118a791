from __future__ import annotations

import fnmatch
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.clock import MAX_WAIT
from cluster_kit.errors import ConfigurationError
from cluster_kit.names import MAX_APP_BYTES, MAX_NAME_BYTES, QueueName
from cluster_kit.ports import delivery_limit
from cluster_kit_amqp.tasks.delays import (
    LADDER_MS,
    LONGEST_MS,
    TICK_MS,
    Wait,
    chain,
    ladder_steps,
    milliseconds,
    wait_for,
)
from cluster_kit_amqp.topology import (
    BACK,
    DELIVER,
    Binding,
    Exchange,
    Queue,
    Steps,
    chain_key,
    directory_steps,
    work_steps,
)

APP = "shop"
QUEUE = QueueName(APP, "mails.send")


def matches(pattern: str, key: str) -> bool:
    """Whether a topic exchange's binding key matches; '#' only ever stands last here."""
    words, parts = pattern.split("."), key.split(".")
    if words[-1] == "#":
        words, parts = words[:-1], parts[: len(words) - 1]
    return len(words) == len(parts) and all(
        word in {"*", part} for word, part in zip(words, parts, strict=True)
    )


def steps_of(wait: Wait) -> Steps:
    return tuple(step for section in wait.needs for step in section.steps)


def whole_chain(app: str) -> Steps:
    return tuple(step for section in chain(app) for step in section.steps)


def travel(queue: QueueName, delay: float) -> tuple[int, str]:
    """Follow a message through the chain as the broker would: ms waited, key at the end."""
    wait = wait_for(APP, queue, delay)
    queues = {step.name: step.arguments for step in steps_of(wait) if isinstance(step, Queue)}
    bindings = [step for step in steps_of(wait) if isinstance(step, Binding)]
    place, waited = wait.exchange, 0
    while place != DELIVER:
        (next_one,) = (b for b in bindings if b.source == place and matches(b.key, wait.key))
        if next_one.target_kind == "exchange":
            place = next_one.target
        else:
            arguments = queues[next_one.target]
            waited += int(arguments["x-message-ttl"])
            place = str(arguments["x-dead-letter-exchange"])
    return waited, wait.key


@given(st.floats(min_value=0.0001, max_value=MAX_WAIT, allow_nan=False))
def test_the_chain_waits_as_long_as_asked_rounded_up_to_a_tick(delay: float) -> None:
    ms = milliseconds(delay)
    if ms in LADDER_MS:
        assert wait_for(APP, QUEUE, delay).exchange == f"ck.v1.wait.shop.{ms}"
        return
    waited, key = travel(QUEUE, delay)

    assert 0 <= waited - ms < TICK_MS
    assert matches(chain_key(QUEUE), key)
    assert not matches(chain_key(QueueName("shop", "send")), key)
    assert not matches(chain_key(QueueName("eu", "shop.mails.send")), key)


@pytest.mark.parametrize("ms", LADDER_MS)
def test_a_delay_on_a_step_takes_one_hop(ms: int) -> None:
    wait = wait_for(APP, QUEUE, ms / 1000)
    (queue,) = (step for step in steps_of(wait) if isinstance(step, Queue))

    assert wait.exchange == queue.name == f"ck.v1.wait.shop.{ms}"
    assert wait.key == QUEUE.full
    assert queue.arguments["x-message-ttl"] == ms
    assert queue.arguments["x-dead-letter-exchange"] == "ck.v1.back"
    assert "x-dead-letter-routing-key" not in queue.arguments


def test_rounding_does_not_add_a_tick_to_a_whole_number_of_ticks() -> None:
    whole = [ticks for ticks in range(1, 100) if ticks * TICK_MS not in LADDER_MS]

    assert [travel(QUEUE, ticks / 10)[0] for ticks in whole] == [ticks * 100 for ticks in whole]


@pytest.mark.parametrize(
    ("delay", "sections", "queues"),
    [(0.1, 1, 4), (1.45, 1, 4), (1.55, 2, 13), (819.05, 2, 13), (819.15, 3, 25), (MAX_WAIT, 3, 25)],
)
def test_as_much_of_the_chain_is_made_as_a_delay_needs(
    delay: float, sections: int, queues: int
) -> None:
    wait = wait_for(APP, QUEUE, delay)

    assert len(wait.needs) == sections
    assert sum(isinstance(step, Queue) for step in steps_of(wait)) == queues


def test_a_delay_beyond_the_chain_is_refused() -> None:
    assert LONGEST_MS / 1000 > MAX_WAIT
    with pytest.raises(ConfigurationError, match="at most"):
        wait_for(APP, QUEUE, LONGEST_MS / 1000 + 1)


def wait_queues(app: str) -> set[str]:
    steps = [*whole_chain(app), *(step for ms in LADDER_MS for step in ladder_steps(app, ms))]
    return {step.name for step in steps if not isinstance(step, Binding)} - {DELIVER, BACK}


def test_no_application_has_a_wait_queue_of_another_or_a_shared_exchange() -> None:
    apps = ["shop", "shop2", "1", "500", "complete", "deliver", "level-00", "back", "dead"]
    names = [name for app in apps for name in wait_queues(app)]
    shared = {step.name for step in work_steps(QUEUE, 10) if not isinstance(step, Binding)}

    assert len(set(names)) == len(names)
    assert not shared & set(names)


def test_a_task_for_a_shared_queue_waits_where_its_publisher_s_own_do() -> None:
    shared = QueueName(None, "audit")
    for delay in (0.2, 0.5):
        own = wait_for(APP, QUEUE, delay)
        assert wait_for(APP, shared, delay).needs == own.needs
        assert wait_for("other", shared, delay).exchange != own.exchange


def all_steps() -> list[Steps]:
    steps = [work_steps(QUEUE, 10), work_steps(QueueName(None, "audit"), 10), whole_chain(APP)]
    steps += [section.steps for section in chain(APP)]
    return [*steps, directory_steps("shop"), *(ladder_steps(APP, ms) for ms in LADDER_MS)]


@pytest.mark.parametrize("steps", all_steps())
def test_targets_are_made_before_what_leads_to_them(steps: Steps) -> None:
    made: set[tuple[str, str]] = set()
    for step in steps:
        match step:
            case Exchange():
                made.add(("exchange", step.name))
            case Queue():
                target = step.arguments.get("x-dead-letter-exchange")
                assert target is None or ("exchange", target) in made
                made.add(("queue", step.name))
            case Binding():
                assert {("exchange", step.source), (step.target_kind, step.target)} <= made


@pytest.mark.parametrize("steps", all_steps())
def test_every_queue_is_quorum_refuses_rather_than_drops_and_has_a_limit(steps: Steps) -> None:
    for queue in (step for step in steps if isinstance(step, Queue)):
        arguments = queue.arguments
        assert arguments["x-queue-type"] == "quorum"
        assert arguments["x-overflow"] == "reject-publish"
        assert int(arguments["x-delivery-limit"]) >= 20
        leads_on = "x-dead-letter-exchange" in arguments
        assert leads_on is (arguments.get("x-dead-letter-strategy") == "at-least-once")
        assert 0 <= int(arguments.get("x-message-ttl", 0)) < 2**32


def test_no_name_or_key_is_too_long_for_amqp() -> None:
    app = "a" * MAX_APP_BYTES
    longest = QueueName(app, "c" * MAX_NAME_BYTES)
    names = [
        longest.dead,
        chain_key(longest),
        wait_for(app, longest, MAX_WAIT).key,
        f"{app}.tasks",
    ]
    for step in (*whole_chain(app), *ladder_steps(app, max(LADDER_MS))):
        names += [step.key] if isinstance(step, Binding) else [step.name]
    for step in work_steps(longest, 10):
        names += [step.key] if isinstance(step, Binding) else [step.name]

    assert max(len(name.encode()) for name in names) <= 255


def test_arguments_depend_on_the_full_name_and_the_crash_limit_alone() -> None:
    def queues(queue: QueueName) -> list[Queue]:
        return [step for step in work_steps(queue, 10) if isinstance(step, Queue)]

    assert queues(QueueName("shop", "mails.send")) == queues(QueueName("shop.mails", "send"))
    assert [delivery_limit(limit) for limit in (0, 9, 10, 11, 500)] == [20, 20, 20, 21, 510]


def test_helpers_carry_the_version_of_the_topology() -> None:
    own = {"shop.tasks", "shop.mails.send", "shop.mails.send.dead"}
    for steps in (work_steps(QUEUE, 10), whole_chain(APP), directory_steps("shop")):
        names = {step.name for step in steps if not isinstance(step, Binding)}
        assert all(fnmatch.fnmatch(name, "ck.v1.*") for name in names - own)


def test_rounding_up_never_makes_a_delay_shorter() -> None:
    for delay in (0.1, 0.10001, 0.0999, 7.123456, 3600.05):
        assert milliseconds(delay) >= math.floor(delay * 1000)
        assert milliseconds(delay) / 1000 >= delay - 1e-8
