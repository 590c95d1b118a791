from __future__ import annotations

import itertools
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.errors import InvalidNameError
from cluster_kit.patterns import check_pattern, covers, is_pattern, matches, overlap

WORDS = st.sampled_from(["a", "b", ""])
PATTERNS = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), min_size=1, max_size=4)
CHANNELS = st.lists(WORDS, min_size=1, max_size=5)


def stands_for(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """The definition, word by word."""
    if not pattern:
        return not words
    first, *rest = pattern
    if first == "#":
        return any(stands_for(tuple(rest), words[n:]) for n in range(len(words) + 1))
    return bool(words) and first in {"*", words[0]} and stands_for(tuple(rest), words[1:])


@cache
def channels() -> tuple[tuple[str, ...], ...]:
    return tuple(words for n in range(1, 6) for words in itertools.product("abc", repeat=n))


@given(PATTERNS, CHANNELS)
def test_a_pattern_matches_what_it_stands_for(pattern: list[str], words: list[str]) -> None:
    assert matches(".".join(pattern), ".".join(words)) is stands_for(tuple(pattern), tuple(words))


@given(
    st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=3),
)
def test_patterns_overlap_where_there_is_a_channel_of_both(
    one: list[str], other: list[str]
) -> None:
    both = any(
        stands_for(tuple(one), words) and stands_for(tuple(other), words) for words in channels()
    )

    assert overlap(".".join(one), ".".join(other)) is both
    assert overlap(".".join(other), ".".join(one)) is both


@given(
    st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=3),
)
def test_a_pattern_covers_only_what_it_stands_for(one: list[str], other: list[str]) -> None:
    if covers(".".join(one), ".".join(other)):
        theirs = (words for words in channels() if stands_for(tuple(other), words))
        assert all(stands_for(tuple(one), words) for words in theirs)
    assert covers(".".join(one), ".".join(one))


def test_many_wildcards_take_no_long_time() -> None:
    assert not matches(".".join(["#", "a"] * 40), ".".join(["a"] * 80 + ["b"]))
    assert overlap(".".join(["#", "a"] * 40), ".".join(["a", "#"] * 40))


@pytest.mark.parametrize("pattern", ["a", "a.b", "*", "#", "a.*.b.#", "*.*", "a..b", "ä.#"])
def test_legal_patterns(pattern: str) -> None:
    assert check_pattern(pattern) == pattern
    assert is_pattern(pattern) is (not {"*", "#"}.isdisjoint(pattern))


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a*", "a wildcard stands alone between dots"),
        ("a.#b.c", "a wildcard stands alone between dots"),
        ("**", "a wildcard stands alone between dots"),
        ("a b.*", "spaces and control characters are not allowed"),
        ("", "it is empty"),
        (3, "it must be a string"),
    ],
)
def test_bad_patterns_are_refused_with_the_reason(pattern: object, reason: str) -> None:
    with pytest.raises(InvalidNameError, match=reason):
        check_pattern(pattern)
