"""Patterns of channel names: ``*`` stands for one word, ``#`` for any number, none included.

Words are what dots separate, as in AMQP topics.
"""

from __future__ import annotations

from cluster_kit.errors import InvalidNameError
from cluster_kit.names import check_name, plain

ONE, MANY = "*", "#"
"""Words of a pattern that stand for one word, and for any number of words, none among them."""


def check_pattern(pattern: object) -> str:
    """Return a channel's name or a pattern of names if it is legal.

    Legal is what `check_name` takes, and wildcards that are words of their own.

    >>> check_pattern("orders.*.paid")
    'orders.*.paid'
    """
    if not isinstance(pattern, str):
        return check_name("channel", pattern)
    pattern = plain(pattern)
    words = pattern.split(".")
    if any(word not in {ONE, MANY} and (ONE in word or MANY in word) for word in words):
        raise InvalidNameError("channel", pattern, "a wildcard stands alone between dots")
    check_name("channel", pattern.replace(ONE, "_").replace(MANY, "_"))
    return pattern


def is_pattern(name: str) -> bool:
    """Whether a legal name has wildcards.

    >>> is_pattern("orders.#"), is_pattern("orders")
    (True, False)
    """
    return ONE in name or MANY in name


def matches(pattern: str, channel: str) -> bool:
    """Whether `pattern` stands for `channel`.

    >>> matches("orders.#", "orders"), matches("orders.*", "orders"), matches("*", "orders")
    (True, False, True)
    """
    if not is_pattern(pattern):
        return pattern == channel
    return _matches(pattern.split("."), channel.split("."))


def covers(one: str, other: str) -> bool:
    """Whether `one` stands for every channel that `other` stands for, as far as words tell.

    ``*.#`` and ``#.*`` stand for the same channels, and yet neither is said to cover the other.

    >>> covers("orders.#", "orders.*"), covers("orders.*", "orders.#"), covers("#", "*")
    (True, False, True)
    """
    return _matches(one.split("."), other.split("."))


def _matches(pattern: list[str], words: list[str]) -> bool:
    """Go through both once; after a mismatch, let the last ``#`` take one word more.

    A wildcard among `words` is matched by one that is as wide.
    """
    at = taken = 0
    many, resume = -1, 0
    while taken < len(words):
        if at < len(pattern) and pattern[at] == MANY:
            many, resume = at, taken
            at += 1
        elif at < len(pattern) and words[taken] != MANY and pattern[at] in {ONE, words[taken]}:
            at += 1
            taken += 1
        elif many >= 0:
            resume += 1
            at, taken = many + 1, resume
        else:
            return False
    return all(word == MANY for word in pattern[at:])


def overlap(one: str, other: str) -> bool:
    """Whether there are channels for which both patterns stand.

    >>> overlap("orders.*", "#.paid"), overlap("orders.*", "mails.#")
    (True, False)
    """
    left, right = one.split("."), other.split(".")
    # row[j]: what was read of `left` and the first j words of `right` stand for a common channel.
    row = [all(word == MANY for word in right[:j]) for j in range(len(right) + 1)]
    for word in left:
        above, row = row, [word == MANY and row[0]]
        for j, opposite in enumerate(right, start=1):
            if MANY in {word, opposite}:
                row.append(above[j] or row[j - 1])
            else:
                row.append(above[j - 1] and (word == opposite or ONE in {word, opposite}))
    return row[-1]
