from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.urls import redact_url, url_scheme

# What a URL can hold at all: white space ends it, and settings refuse it there.
PASSWORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: not any(c.isspace() for c in text)
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://shop:secret@mq/", "amqp://shop:***@mq/"),
        ("amqp://shop@mq/", "amqp://shop@mq/"),
        ("amqp://shop:@mq/", "amqp://shop:***@mq/"),
        ("redis://:secret@cache:6379/0", "redis://:***@cache:6379/0"),
        ("redis://secret@cache:6379/0", "redis://***@cache:6379/0"),
        ("rediss+sentinel://secret@s-1,s-2/main", "rediss+sentinel://***@s-1,s-2/main"),
        ("unix://secret@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("amqp://mq:5672/prod", "amqp://mq:5672/prod"),
        ("amqp://a:one@mq-1,b:two@mq-2/", "amqp://a:***@mq-2/"),
        (
            "tried amqp://a:one@mq-1 and amqp://b:two@mq-2",
            "tried amqp://a:***@mq-1 and amqp://b:***@mq-2",
        ),
        ("redis://cache/?password=one&db=2", "redis://cache/?password=***&db=2"),
        ("redis://cache/?db=2&TOKEN=one", "redis://cache/?db=2&TOKEN=***"),
        ("no URL at all, me@example.org", "no URL at all, me@example.org"),
        ("", ""),
    ],
)
def test_only_secrets_are_hidden(text: str, shown: str) -> None:
    assert redact_url(text) == shown


@given(password=PASSWORDS)
def test_no_password_survives_whatever_its_characters(password: str) -> None:
    assert redact_url(f"amqp://shop:{password}@mq-1/prod") == "amqp://shop:***@mq-1/prod"


@given(password=PASSWORDS)
def test_no_password_survives_inside_a_sentence(password: str) -> None:
    text = f"cannot reach amqps://shop:{password}@mq:5671/ (refused)"

    assert redact_url(text) == "cannot reach amqps://shop:***@mq:5671/ (refused)"


@given(text=st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact_url(text)

    assert redact_url(once) == once


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("amqp://mq/", "amqp"),
        ("AMQPS://mq/", "amqps"),
        ("memory://", "memory"),
        ("redis+tls://cache", "redis+tls"),
        ("mq:5672", ""),
        ("//mq/", ""),
        ("amqp://[::1/", "amqp"),
        ("shop:s3cret@mq/?next=http://elsewhere", ""),
        ("", ""),
    ],
)
def test_scheme(url: str, scheme: str) -> None:
    assert url_scheme(url) == scheme
