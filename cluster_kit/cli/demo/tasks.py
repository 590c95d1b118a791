"""What the queue of tasks promises, each with what proves it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from cluster_kit.cli.demo.journal import BrokenPromise, require
from cluster_kit.cli.demo.promise import EARLY, LATE, Promise, listed, milliseconds
from cluster_kit.cli.demo.task_handlers import (
    BACKOFF,
    CRASH,
    CRASH_LIMIT,
    DRAIN,
    EXPIRE,
    FAIL,
    INVALID,
    KILL,
    NAP,
    ORDER,
    REJECT,
    RETRY,
    SHARE,
    SNOOZE,
    TIMEOUT,
)
from cluster_kit.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_kit.cli.demo.journal import Event
    from cluster_kit.cli.demo.stage import Stage
    from cluster_kit.message import DeadLetter


async def shared_out(stage: Stage) -> str:
    """Many tasks, all instances: each task runs once, on one of them."""
    count = 12 * len(stage.instances)
    ids = await stage.queue.publish_many(SHARE, [{"number": n} for n in range(count)])
    await stage.journal.until_done(ids)
    runs = stage.journal.of("run", ids)
    require(len(runs) == count, f"{count} tasks ran {len(runs)} times")
    shares = Counter(run.instance for run in runs)
    names = stage.names
    require(set(shares) == set(names), f"only {', '.join(sorted(shares))} took part")
    return f"{count} tasks ran {len(runs)} times: {listed(shares[name] for name in names)}"


async def delays_in_order(stage: Stage) -> str:
    """Tasks published longest delay first run shortest delay first, none early."""
    # Whoever is first to delay anything makes the broker's queues for it, which takes its time.
    await stage.journal.until_done([await stage.queue.publish(ORDER, {}, delay=0.01)])
    begun: dict[str, float] = {}
    for delay in stage.delays:
        due = SystemClock().wall() + delay
        begun[await stage.queue.publish(ORDER, {}, delay=delay)] = due
    await stage.journal.until_done(list(begun))
    runs = sorted(stage.journal.of("run", begun), key=lambda run: run.at)
    order = [run.id for run in runs]
    require(order == list(reversed(begun)), "they ran in another order than that of their delays")
    late = [run.at - begun[run.id] for run in runs]
    require(min(late) > -EARLY, f"one ran {-min(late):.3f} s early")
    require(max(late) < LATE, f"one ran {max(late):.1f} s late")
    latest = milliseconds(max(late))
    return f"published {listed(stage.delays)} s, ran in reverse; at most {latest} late"


async def retried(stage: Stage) -> str:
    """A task fails twice and then succeeds, under one id, after growing pauses."""
    id_ = await stage.queue.publish(RETRY, {}, max_retries=3)
    await stage.journal.until_done([id_])
    runs = stage.journal.of("run", [id_])
    attempts = [run.attempt for run in runs]
    require(attempts == [1, 2, 3], f"its attempts were {listed(attempts)}")
    pauses = [later.at - earlier.at for earlier, later in pairwise(runs)]
    first, second = BACKOFF.delay(1), BACKOFF.delay(2)
    late = [pauses[0] - first, pauses[1] - second]
    require(all(-EARLY < by < LATE for by in late), _pauses(pauses))
    return f"failed twice, done at attempt 3; {_pauses(pauses)}"


async def timed_out(stage: Stage) -> str:
    """A handler over its time gets the signal, is cancelled, and has failed."""
    id_ = await stage.queue.publish(TIMEOUT, {}, timeout=0.4, max_retries=0)
    letter = await _only_letter(stage, TIMEOUT, id_)
    cancelled = stage.journal.of("cancelled", [id_])
    require(len(cancelled) == 1, f"it was cancelled {len(cancelled)} times")
    require(cancelled[0].detail == "timeout", f"the signal said {cancelled[0].detail!r}")
    lasted = cancelled[0].at - stage.journal.of("run", [id_])[0].at
    require(lasted > 0.4 - EARLY, f"it was cancelled after {lasted:.2f} s")
    _check_letter(letter, reason="failed", error="HandlerTimeout")
    return f"limit 0.4 s: cancelled after {lasted:.2f} s, signal {cancelled[0].detail!r}"


async def expired(stage: Stage) -> str:
    """A task nobody takes before its ttl ends is dead and never runs."""
    id_ = await stage.queue.publish(EXPIRE, {}, ttl=0.4)
    letter = await _only_letter(stage, EXPIRE, id_)
    _check_letter(letter, reason="expired")
    runs = stage.journal.of("run", [id_])
    require(not runs, f"it ran {len(runs)} times all the same")
    return f"ttl 0.4 s, no instance took it: dead as {letter.reason.value!r}, ran 0 times"


async def dead_and_replayed(stage: Stage) -> str:
    """A task that keeps failing becomes a dead letter; repaired and replayed, it is done."""
    id_ = await stage.queue.publish(FAIL, {"mail": 1}, max_retries=1)
    letter = await _only_letter(stage, FAIL, id_)
    _check_letter(letter, reason="failed", error="LookupError")
    require(letter.attempts == 2, f"it ran {letter.attempts} times before")  # noqa: PLR2004
    stage.tell_all("fix")
    names = set(stage.names)
    await stage.journal.until(
        lambda: names <= set(stage.journal.instances("fixed")), "the fix did not arrive"
    )
    replayed = await stage.queue.dead_letters(FAIL).replay([id_])
    require(replayed == 1, f"{replayed} were replayed")
    await stage.journal.until_done([id_])
    left = await stage.queue.dead_letters(FAIL).browse()
    require(not left, f"{len(left)} dead letters are left")
    return f"dead after {letter.attempts} runs ({_error(letter)}); replayed after a fix: done"


async def rejected(stage: Stage) -> str:
    """A handler that says never is asked once."""
    id_ = await stage.queue.publish(REJECT, {}, max_retries=5)
    letter = await _only_letter(stage, REJECT, id_)
    _check_letter(letter, reason="rejected")
    runs = stage.journal.of("run", [id_])
    require(len(runs) == 1, f"it ran {len(runs)} times")
    return f"ran once of 6 possible times; dead: {letter.error_text!r}"


async def snoozed(stage: Stage) -> str:
    """A task that says not now comes back later and has used no attempt."""
    id_ = await stage.queue.publish(SNOOZE, {}, max_retries=0)
    await stage.journal.until_done([id_])
    runs = stage.journal.of("run", [id_])
    require(len(runs) > 1, "it did not snooze")
    attempts = {run.attempt for run in runs}
    require(attempts == {1}, f"its attempts were {listed(attempts)}")
    pauses = [later.at - earlier.at for earlier, later in pairwise(runs)]
    require(all(-EARLY < pause - NAP < LATE for pause in pauses), _pauses(pauses))
    return f"ran {len(runs)} times, always as attempt 1, without a retry to spend"


async def invalid(stage: Stage) -> str:
    """A payload that is not what the handler is annotated with never reaches it."""
    good = await stage.queue.publish(INVALID, {"number": 1})
    bad = await stage.queue.publish(INVALID, {"number": "many"}, max_retries=5)
    letter = await _only_letter(stage, INVALID, bad)
    _check_letter(letter, reason="undecodable")
    await stage.journal.until_done([good])
    runs = stage.journal.of("run", [bad])
    require(not runs, f"the handler saw it {len(runs)} times")
    return "a valid payload ran; an invalid one is dead, its handler never saw it"


async def crash_survived(stage: Stage) -> str:
    """The task of an instance that dies in the middle of it is done by another one."""
    id_ = await stage.queue.publish(CRASH, {})
    victim = stage.take_out((await _nth_run(stage, id_, 0)).instance)
    killed = SystemClock().wall()
    await victim.crash()
    done = (await stage.journal.until_done([id_]))[0]
    require(done.instance != victim.name, f"{victim.name} is not as dead as it should be")
    require(done.redelivered, "the second run was not told that there had been a first")
    return f"{victim.name} died in it; {done.instance} did it {done.at - killed:.2f} s later"


async def killer_taken_out(stage: Stage) -> str:
    """A task that takes its instance down with it, each time, ends as a dead letter."""
    await stage.fill_up(more=CRASH_LIMIT)
    id_ = await stage.queue.publish(KILL, {}, max_retries=0)
    for earlier in range(CRASH_LIMIT + 1):
        run = await _nth_run(stage, id_, earlier)
        victim = stage.take_out(run.instance)
        require(await victim.died(), f"{victim.name} lives on")
    letter = await _only_letter(stage, KILL, id_)
    _check_letter(letter, reason="crashed")
    runs = len(stage.journal.of("run", [id_]))
    require(runs == CRASH_LIMIT + 1, f"it was run {runs} times with a limit of {CRASH_LIMIT}")
    return f"{runs} instances died of it, one by one; then dead as {letter.reason.value!r}"


async def drained(stage: Stage) -> str:
    """An instance told to stop finishes what it runs, takes nothing more, and loses nothing."""
    count = 3 * len(stage.instances)
    ids = await stage.queue.publish_many(DRAIN, [{"number": n} for n in range(count)])
    await stage.journal.until(
        lambda: len(_busy(stage, ids)) == len(stage.instances), "not every instance took part"
    )
    leaver = stage.take_out(stage.journal.of("run", ids)[-1].instance)
    told = SystemClock().wall()
    await leaver.stop()
    await stage.journal.until(
        lambda: leaver.name in stage.journal.instances("stopped"), f"{leaver.name} did not stop"
    )
    await stage.journal.until_done(ids)
    runs = stage.journal.of("run", ids)
    require(len(runs) == count, f"{count} tasks ran {len(runs)} times")
    theirs = [run for run in runs if run.instance == leaver.name]
    late = [run for run in theirs if run.at > told + 0.3]
    require(not late, f"{leaver.name} took {len(late)} more tasks")
    unfinished = _stopped(stage, leaver.name).detail
    require(not unfinished, f"{leaver.name} cut short {unfinished}")
    return (
        f"{leaver.name} finished its {len(theirs)}, the others did {count - len(theirs)}; "
        f"{count} tasks, {len(runs)} runs"
    )


async def _nth_run(stage: Stage, id_: str, earlier: int) -> Event:
    """Wait for the run that follows upon so many earlier ones."""
    await stage.journal.until(
        lambda: len(stage.journal.of("run", [id_])) > earlier, "nobody took the task"
    )
    return stage.journal.of("run", [id_])[earlier]


async def _only_letter(stage: Stage, channel: str, id_: str) -> DeadLetter:
    letters = await stage.dead_letters(channel, [id_])
    require(len(letters) == 1, f"there are {len(letters)} dead letters of one task")
    return letters[0]


def _check_letter(letter: DeadLetter, *, reason: str, error: str | None = None) -> None:
    require(letter.reason.value == reason, f"it is dead as {letter.reason.value!r}")
    require(error in (None, _error(letter)), f"the dead letter says {letter.error_type!r}")


def _error(letter: DeadLetter) -> str:
    return letter.error_type.rpartition(".")[2]


def _busy(stage: Stage, ids: list[str]) -> set[str]:
    return {run.instance for run in stage.journal.of("run", ids)}


def _stopped(stage: Stage, name: str) -> Event:
    for event in stage.journal.events:
        if event.kind == "stopped" and event.instance == name:
            return event
    raise BrokenPromise(f"{name} did not stop")


def _pauses(pauses: Sequence[float]) -> str:
    return f"pauses of {' and '.join(f'{pause:.2f}' for pause in pauses)} s"


TASKS = (
    Promise("a task runs once, on one of the instances", shared_out),
    Promise("a short delay overtakes a long one", delays_in_order),
    Promise("what fails is retried, later and later", retried),
    Promise("what takes too long is cancelled", timed_out),
    Promise("what waits too long never runs", expired),
    Promise("what keeps failing is kept, and can be replayed", dead_and_replayed),
    Promise("a handler can refuse a task for good", rejected),
    Promise("a handler can put a task off", snoozed),
    Promise("a payload is validated before it runs", invalid),
)

ENDINGS = (
    Promise("a crash loses nothing", crash_survived),
    Promise("what kills its workers is taken out", killer_taken_out),
    Promise("a stop loses nothing and doubles nothing", drained),
)
