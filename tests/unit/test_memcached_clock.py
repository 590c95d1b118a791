from __future__ import annotations

import pytest

from cluster_kit_aiocache.memcached_clock import Reading

READING = Reading(key=b"down", since=100.0, left=50)
"""Between 100 and a little later the value that counts down came to 50."""


def test_right_after_the_change_a_second_is_lost_to_the_whole_seconds() -> None:
    assert READING.certain_until(50, 10) == pytest.approx(109, abs=0.02)


def test_a_value_stored_later_lives_for_later() -> None:
    assert READING.certain_until(43, 10) == pytest.approx(116, abs=0.02)


def test_what_was_stored_by_a_clock_that_was_late_lives_for_less() -> None:
    stood_still_until = 104.0

    # The clock shows what it showed at 100, and is set right a moment later.
    assert READING.certain_until(50, 3) < stood_still_until
    assert READING.certain_until(50, 10) < stood_still_until + 10 - 4


def test_a_reading_that_is_old_promises_less_and_not_more() -> None:
    for age in range(0, 300, 30):
        assert READING.certain_until(50 - age, 10) <= 100 + age + 9
