from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.cache.changes import MOST_UNSENT, Change, Unsent, from_message
from cluster_kit.cache.counters import LocalCounters
from cluster_kit.cache.envelope import (
    STAMP_BYTES,
    CorruptEntryError,
    Kind,
    Record,
    head_of,
    pack,
    removed_value,
    unpack,
)
from cluster_kit.cache.local import (
    ENTRY_BYTES,
    MOST_MARKS,
    TAG_BYTES,
    TAGGED_BYTES,
    Entry,
    Local,
)
from cluster_kit.cache.names import Names
from cluster_kit.cache.values import Values
from cluster_kit.clock import SystemClock

FOREIGN_NAMES = ["", "a b", "x v\r\nms stolen 3 T0\r\nyes\r\nmg y", "a\x7f", "*", "n" * 201]
STAMPS = st.binary(min_size=STAMP_BYTES, max_size=STAMP_BYTES)
NAMES = st.text(
    st.characters(exclude_characters=" *#", exclude_categories=["C", "Z"]), min_size=1, max_size=40
)
TIMES = st.integers(0, 10**12).map(lambda ms: ms / 1000)
RECORDS = st.builds(
    Record,
    kind=st.sampled_from(Kind),
    epoch=STAMPS,
    created=TIMES,
    ttl=st.none() | st.integers(1, 10**10).map(lambda ms: ms / 1000),
    grace=TIMES,
    promised=TIMES,
    tags=st.dictionaries(NAMES, STAMPS, max_size=4),
    payload=st.binary(max_size=200),
    stamp=STAMPS,
)


@given(RECORDS)
def test_an_entry_comes_back_as_it_was(record: Record) -> None:
    assert unpack(pack(record)) == record


@given(RECORDS, st.data())
def test_an_entry_that_was_changed_or_cut_is_none(record: Record, data: st.DataObject) -> None:
    body = bytearray(pack(record))
    place = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        body[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del body[place:]

    with pytest.raises(CorruptEntryError):
        unpack(bytes(body))


@given(st.binary(max_size=300))
def test_other_bytes_are_none(body: bytes) -> None:
    with pytest.raises(CorruptEntryError):
        unpack(body)
    assert removed_value(body, None, 0.0) is False


@pytest.mark.parametrize("field", ["created", "ttl", "grace", "promised"])
def test_an_entry_whose_time_is_none_is_none(field: str) -> None:
    body = pack(made(**{field: 2.0**53 / 1000 + 1000}))

    with pytest.raises(CorruptEntryError):
        unpack(body)


@pytest.mark.parametrize("tag", FOREIGN_NAMES)
def test_an_entry_whose_tag_is_no_name_is_none(tag: str) -> None:
    with pytest.raises(CorruptEntryError):
        unpack(pack(made(tags={tag: b"version1"})))


def test_two_entries_of_a_key_begin_differently() -> None:
    record = unpack(pack(made()))
    other = unpack(pack(made(stamp=b"otherone")))

    assert head_of(pack(record)) != head_of(pack(other))


def made(**fields: object) -> Record:
    known: dict[str, object] = {
        "kind": Kind.VALUE,
        "epoch": b"epoch-01",
        "created": 100.0,
        "ttl": 10.0,
        "grace": 5.0,
        "promised": 0.0,
        "tags": {},
        "payload": b"1",
        "stamp": b"stamp-01",
        **fields,
    }
    return Record(**known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "epoch", "now", "counts"),
    [
        (pack(made()), b"epoch-01", 105.0, True),
        (pack(made()), None, 105.0, True),
        (pack(made()), b"epoch-02", 105.0, False),
        (pack(made()), b"epoch-01", 110.0, False),
        (pack(made(ttl=None)), b"epoch-01", 10**9, True),
        (pack(made(kind=Kind.PROMISE)), b"epoch-01", 105.0, False),
        (None, None, 105.0, False),
    ],
)
def test_what_was_removed_counted_or_not(
    body: bytes | None, epoch: bytes | None, now: float, counts: bool
) -> None:
    assert removed_value(body and body[:64], epoch, now) is counts


def test_a_clock_that_is_behind_prolongs_nothing() -> None:
    assert made().left(50.0) == 10.0
    assert made().left(104.0) == 6.0
    assert made(ttl=None).left(1e9) is None


def test_prefixes_with_dots_are_kept_apart() -> None:
    assert Names("shop", "a.b").entry("c") != Names("shop", "a").entry("b.c")
    assert Names("shop", "a").epoch != Names("shop", "b").epoch


class Now:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def entry(
    value: object = 1, *, end: float = 100.0, tags: Iterable[str] = "", size: int = 0
) -> Entry:
    return Entry(value, None, end, 1e9, end, end, 0.0, frozenset(tags), size)


def test_at_most_so_many_entries_are_held_and_used_ones_are_spared() -> None:
    local = Local(3, 10**6, Now())
    for key in "abc":
        local.put(key, entry())
    local.entries["a"].used = True

    local.put("d", entry())
    local.put("e", entry())

    assert set(local.entries) == {"a", "d", "e"}


def test_at_most_so_many_bytes_are_held() -> None:
    each = ENTRY_BYTES + 1 + 100
    local = Local(1000, 5 * each, Now())
    for number in range(50):
        local.put(chr(97 + number % 26), entry(size=100))

    assert len(local.entries) == 5
    assert local.bytes == 5 * each
    local.put("huge", entry(size=6 * each))
    assert "huge" not in local.entries
    local.clear()
    assert local.bytes == 0


def test_tags_are_counted_as_long_as_anything_has_them() -> None:
    local = Local(1000, 10**6, Now())
    for key in "abc":
        local.put(key, entry(tags="xy"))
    assert local.bytes == 3 * (ENTRY_BYTES + 1 + 2 * (TAG_BYTES + 1)) + 2 * TAGGED_BYTES
    local.put("c", entry(tags="z"))
    local.drop_tags(["x"])
    assert local.bytes == ENTRY_BYTES + 1 + TAG_BYTES + 1 + TAGGED_BYTES
    local.drop("c")
    assert local.bytes == 0
    local.put("a", entry(tags=frozenset(f"{number:0100}" for number in range(10**4))))
    assert not local.entries
    assert local.bytes == 0


SHAPES: dict[str, object] = {
    "empty dicts": [{} for _ in range(500)],
    "lists": [[number] for number in range(1000, 1500)],
    "rows": [{"id": n, "name": f"name-{n}", "on": True} for n in range(500)],
    "a row": {"id": 1234, "name": "a name", "mail": "a@mail.example", "on": True},
    "words": [f"word-{number}" for number in range(500)],
    "a dict": {f"key-{number}": number + 1000 for number in range(500)},
    "a text": "a" * 10_000,
    "a wide text": ["a" * 10_000 + "\N{GRINNING FACE}"],
    "a text of others": {"text": "\u4e2d" * 10_000},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_value_takes_is_estimated_by_its_json(shape: str) -> None:
    values = Values("deep", encoded=True, limit=10**9)
    body = values.encode("key", SHAPES[shape])
    tracemalloc.start()
    try:
        held = [(value := values.own(SHAPES[shape], body), values.copier(value)) for _ in range(9)]
        taken = tracemalloc.get_traced_memory()[0] / len(held)
    finally:
        tracemalloc.stop()

    if shape != "a text":  # which is the very one
        assert taken * 0.7 < values.size(held[0][0], body) < taken * 4
    assert values.size(held[0][0], body) >= len(body)


def test_an_entry_that_is_over_is_not_found() -> None:
    now = Now()
    local = Local(3, 10**6, now)
    local.put("a", entry(end=5.0))
    now.seconds = 5.0

    assert local.find("a") is None
    assert not local.entries


def test_dropping_tags_drops_their_entries_alone() -> None:
    local = Local(10, 10**6, Now())
    for key, tags in (("a", "x"), ("b", "xy"), ("c", "y"), ("d", "")):
        local.put(key, entry(tags=tags))
    local.put("b", entry(tags="y"))  # it has not that tag any more

    local.drop_tags(["x"])

    assert set(local.entries) == {"b", "c", "d"}


@pytest.mark.parametrize("how", ["key", "tag", "all", "other key", "other tag"])
def test_a_ticket_is_void_after_an_invalidation(how: str) -> None:
    local = Local(10, 10**6, Now())
    ticket = local.open("a")
    if "key" in how:
        local.drop(["b" if "other" in how else "a"])
    elif "tag" in how:
        local.drop_tags(["y" if "other" in how else "x"])
    else:
        local.clear()

    held = local.redeem(ticket, entry(tags="x"))
    local.close(ticket)

    assert held is ("other" in how)
    assert ("a" in local.entries) is held
    local.drop(["a"])  # of a ticket that was closed nothing is left


def test_more_tags_than_are_remembered_count_as_all() -> None:
    local = Local(10, 10**6, Now())
    ticket = local.open("a")
    local.drop_tags(map(str, range(MOST_MARKS + 1)))
    later = local.open("b")

    assert not local.redeem(ticket, entry(tags="x"))
    assert local.redeem(ticket, entry())
    assert local.redeem(later, entry(tags="x"))


def test_what_is_unsent_is_kept_once_and_collapses() -> None:
    unsent = Unsent()
    for _ in range(2):
        unsent.add(Change(keys=("a", "b"), tags=("t",)))
    assert len(unsent) == 3
    unsent.done(Change(keys=("a", "b")), additions=1)
    assert len(unsent) == 3  # they were added once more since
    unsent.done(Change(keys=("a",)), additions=2)
    assert not unsent.concerns("a")
    assert [c.keys or c.tags for c in unsent.parts()] == [("b",), ("t",)]

    unsent.add(Change(keys=tuple(str(number) for number in range(MOST_UNSENT + 1))))

    assert len(unsent) == 1
    assert unsent.concerns("anything")
    assert [change.everything for change in unsent.parts()] == [True]
    unsent.add(Change(keys=("a",)))
    unsent.done(Change(everything=True), additions=2)
    assert unsent.concerns("a")


def test_a_change_travels_by_name() -> None:
    change = Change(keys=("a",), tags=("t",), stored=False)
    message = {**change.message(), "k": ["a"], "t": ["t"]}  # as JSON gives it back

    assert from_message(message) == change


@pytest.mark.parametrize("message", [None, [], {}, {"k": "a"}, {"k": [1], "t": [], "all": False}])
def test_what_another_release_may_say_is_taken_for_all(message: object) -> None:
    assert from_message(message).everything


@pytest.mark.parametrize("name", [*FOREIGN_NAMES, "\ud800"])
@pytest.mark.parametrize("field", ["k", "t"])
def test_what_is_no_name_is_taken_for_all(field: str, name: str) -> None:
    told = from_message({"k": [], "t": [], "all": False, "stored": True, field: ["a", name]})

    assert told == Change(everything=True)


def test_a_reset_is_forgotten_only_when_it_was_carried_out_itself() -> None:
    unsent = Unsent()
    unsent.add(Change(everything=True, counters=("mine",)))

    unsent.carried_out(["of somebody else, long ago"])
    assert [change.counters for change in unsent.parts()] == [("mine",)]
    unsent.carried_out(["mine"])
    assert [change.counters for change in unsent.parts()] == [()]


@pytest.mark.parametrize(
    ("owed", "stored"),
    [
        (Change(keys=("k",)), True),
        (Change(everything=True), False),
        (Change(counters=("mine",)), False),
        (Change(counters=("another",)), True),
    ],
)
def test_a_change_is_told_as_known_to_the_store_unless_it_is_owed(
    owed: Change, stored: bool
) -> None:
    unsent = Unsent()
    unsent.add(owed)
    change = Change(tags=("t",), counters=("mine",))

    assert unsent.as_told(change) == change._replace(stored=stored)


@pytest.mark.asyncio
async def test_a_reset_of_counters_heard_of_again_ends_nothing() -> None:
    counters = LocalCounters(10, SystemClock())
    await counters.increment("k", 1, None)
    counters.reset(["one"])
    assert await counters.count("k", clear=False) == 0
    await counters.increment("k", 2, None)
    counters.reset(["one"])
    assert await counters.count("k", clear=False) == 2
    counters.reset(["another"])
    assert await counters.count("k", clear=False) == 0
