from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.clock import MAX_WAIT, SystemClock, seconds, utc
from cluster_kit.errors import ConfigurationError

FINITE = "delay must be finite and 0 or more seconds"
AT_MOST = "delay may be at most 2,592,000 seconds"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (timedelta(minutes=1, milliseconds=250), 60.25),
        (timedelta(0), 0.0),
        (MAX_WAIT, MAX_WAIT),
    ],
)
def test_numbers_and_timedeltas_are_seconds(value: object, expected: float) -> None:
    checked = seconds("delay", value, limit=MAX_WAIT)

    assert checked == expected
    assert type(checked) is float


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, f"{FINITE}, not -1"),
        (-0.001, f"{FINITE}, not -0.001"),
        (math.nan, f"{FINITE}, not nan"),
        (math.inf, f"{FINITE}, not inf"),
        (-math.inf, f"{FINITE}, not -inf"),
        (True, "delay must be seconds or a timedelta, not bool"),
        ("5", "delay must be seconds or a timedelta, not str"),
        (Decimal(5), "delay must be seconds or a timedelta, not Decimal"),
        (None, "delay must be seconds or a timedelta, not NoneType"),
        (MAX_WAIT + 1, f"{AT_MOST}, not 2592001.0"),
        (timedelta(days=-1), f"{FINITE}, not datetime.timedelta(days=-1)"),
        (timedelta(days=31), f"{AT_MOST}, not datetime.timedelta(days=31)"),
    ],
)
def test_a_bad_duration_is_refused_by_name(value: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        seconds("delay", value, limit=MAX_WAIT)


def test_an_integer_beyond_every_float_is_refused_too() -> None:
    with pytest.raises(ConfigurationError, match=r"^delay must be finite"):
        seconds("delay", 10**400)


@pytest.mark.parametrize("value", [0, 0.0, timedelta(0)])
def test_zero_is_refused_where_it_makes_no_sense(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^ttl must be finite and above 0 seconds, not"):
        seconds("ttl", value, zero=False)


@given(value=st.floats() | st.integers() | st.timedeltas() | st.text() | st.none() | st.booleans())
def test_whatever_is_passed_the_answer_is_legal_or_a_configuration_error(value: object) -> None:
    try:
        checked = seconds("delay", value, zero=False, limit=MAX_WAIT)
    except ConfigurationError as exc:
        assert str(exc).startswith("delay ")  # noqa: PT017 - either way is right
    else:
        assert 0 < checked <= MAX_WAIT


@pytest.mark.asyncio
async def test_the_system_clock_sleeps_and_never_goes_back() -> None:
    clock = SystemClock()
    before = clock.monotonic()

    await clock.sleep(0.01)

    assert clock.monotonic() - before >= 0.009


def test_the_system_clock_tells_the_wall_time() -> None:
    before = datetime.now(UTC)
    told = utc(SystemClock().wall())
    after = datetime.now(UTC)

    assert before <= told <= after


def test_timestamps_become_aware_datetimes() -> None:
    assert utc(0.5) == datetime(1970, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert utc(0).tzinfo is UTC
