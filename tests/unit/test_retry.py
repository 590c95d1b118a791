from __future__ import annotations

import asyncio
import math
import random
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.clock import MAX_WAIT
from cluster_kit.errors import ConfigurationError
from cluster_kit.retry import RetryPolicy


def test_the_defaults_grow_from_half_a_second_to_ten_minutes() -> None:
    policy = RetryPolicy(jitter=0)

    assert [policy.delay(failures) for failures in range(1, 13)] == [
        *(0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        600,
    ]
    assert RetryPolicy().jitter == 0.1


@pytest.mark.parametrize("failures", [1, 2, 50, 10_000, 1_000_001])
def test_zero_is_at_once_however_often_it_failed(failures: int) -> None:
    assert RetryPolicy(initial_delay=0).delay(failures) == 0


@pytest.mark.parametrize("factor", [2, 2.0, 1e300])
def test_growth_without_bounds_ends_at_the_longest_delay(factor: float) -> None:
    policy = RetryPolicy(factor=factor, max_delay=60, jitter=0)

    assert policy.delay(1_000_001) == 60


def test_timedeltas_are_durations_too() -> None:
    values: dict[str, Any] = {
        "initial_delay": timedelta(seconds=2),
        "max_delay": timedelta(seconds=3),
    }
    policy = RetryPolicy(jitter=0, **values)

    assert [policy.delay(1), policy.delay(2)] == [2.0, 3.0]
    assert policy == RetryPolicy(initial_delay=2, max_delay=3, jitter=0)


@given(
    initial=st.floats(0, MAX_WAIT),
    factor=st.floats(1, 1e6),
    more=st.floats(0, MAX_WAIT),
    jitter=st.floats(0, 1),
    failures=st.integers(1, 1_000_001),
    seed=st.integers(),
)
def test_a_delay_stays_within_its_bounds(
    initial: float, factor: float, more: float, jitter: float, failures: int, seed: int
) -> None:
    longest = max(initial, more)
    policy = RetryPolicy(
        initial_delay=initial,
        factor=factor,
        max_delay=longest,
        jitter=jitter,
        random=random.Random(seed),
    )
    exact = RetryPolicy(initial_delay=initial, factor=factor, max_delay=longest, jitter=0)
    nominal, delay = exact.delay(failures), policy.delay(failures)

    assert nominal <= longest
    assert 0 <= delay <= longest
    assert delay <= nominal * (1 + jitter) * (1 + 1e-9)
    assert delay >= min(nominal * (1 - jitter) * (1 - 1e-9), MAX_WAIT)


def test_at_the_longest_delay_jitter_still_spreads_what_failed_together() -> None:
    policy = RetryPolicy(max_delay=100, jitter=0.1, random=random.Random(1))
    delays = [policy.delay(50) for _ in range(100)]

    assert 90 <= min(delays) < 92
    assert 98 < max(delays) <= 100
    assert len(set(delays)) == 100


def test_jitter_comes_from_the_given_generator_and_varies() -> None:
    def delays(seed: int) -> list[float]:
        policy = RetryPolicy(jitter=0.5, random=random.Random(seed))
        return [policy.delay(1) for _ in range(5)]

    assert delays(1) == delays(1) != delays(2)
    assert len(set(delays(1))) == 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"initial_delay": -1}, "initial_delay must be finite and 0 or more seconds, not -1"),
        ({"initial_delay": "1"}, "initial_delay must be seconds or a timedelta, not str"),
        ({"max_delay": math.nan}, "max_delay must be finite and 0 or more seconds, not nan"),
        ({"max_delay": 1e9}, "max_delay may be at most 2,592,000 seconds, not 1000000000.0"),
        ({"initial_delay": 700}, "initial_delay, 700, is above max_delay, 600 seconds"),
        ({"max_delay": 0.2}, "initial_delay, 0.5, is above max_delay, 0.2 seconds"),
        ({"factor": 0.5}, "factor must be finite and 1 or more, not 0.5"),
        ({"factor": math.inf}, "factor must be finite and 1 or more, not inf"),
        ({"factor": "2"}, "factor must be finite and 1 or more, not '2'"),
        ({"jitter": 1.1}, "jitter must be from 0 to 1, not 1.1"),
        ({"jitter": math.nan}, "jitter must be from 0 to 1, not nan"),
        ({"jitter": None}, "jitter must be from 0 to 1, not None"),
        ({"retry_on": [ValueError]}, "retry_on must be an exception class or a tuple of them"),
        ({"retry_on": ValueError()}, "retry_on must be an exception class or a tuple of them"),
        ({"immediate": -1}, "immediate must be 0 or more, not -1"),
        ({"immediate": 1.0}, "immediate must be an integer, not float"),
        ({"immediate": True}, "immediate must be an integer, not bool"),
        ({"immediate": None}, "immediate must be an integer, not NoneType"),
        ({"give_up_on": (int,)}, "give_up_on must be an exception class or a tuple of them"),
    ],
)
def test_a_bad_policy_is_refused_when_it_is_made(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        RetryPolicy(**options)


@pytest.mark.parametrize(
    ("policy", "error", "retried"),
    [
        (RetryPolicy(), ValueError(), True),
        (RetryPolicy(), SystemExit(), True),
        (RetryPolicy(), asyncio.CancelledError(), True),
        (RetryPolicy(retry_on=()), asyncio.CancelledError(), True),
        (RetryPolicy(give_up_on=BaseException), SystemExit(), False),
        (RetryPolicy(retry_on=OSError), TimeoutError(), True),
        (RetryPolicy(retry_on=OSError), ValueError(), False),
        (RetryPolicy(retry_on=(OSError, KeyError)), KeyError(), True),
        (RetryPolicy(retry_on=()), ValueError(), False),
        (RetryPolicy(give_up_on=LookupError), KeyError(), False),
        (RetryPolicy(retry_on=KeyError, give_up_on=LookupError), KeyError(), False),
        (RetryPolicy(give_up_on=(TypeError, ValueError)), KeyError(), True),
    ],
)
def test_which_errors_are_retried(policy: RetryPolicy, error: BaseException, retried: bool) -> None:
    assert policy.retries(error) is retried
