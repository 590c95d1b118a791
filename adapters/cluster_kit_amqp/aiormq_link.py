"""The seam of `cluster_kit_amqp.link`, on aiormq."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiormq
from aiormq.abc import AbstractChannel

from cluster_kit_amqp.aiormq_channel import AiormqChannel
from cluster_kit_amqp.aiormq_stream import Observed, Transport
from cluster_kit_amqp.errors import Translated, dial_failed
from cluster_kit_amqp.link import DialFailed, LinkDown, LinkError, Server

if TYPE_CHECKING:
    from cluster_kit_amqp.options import Host, Options

_CLOSE_TIMEOUT = 4.0  # seconds; aiormq waits 2 for the broker's answer
_GRACE = 0.5  # seconds a call may take after the loss of its link to say how it ended

_REPORTED_BY_US = (
    "error when creating transport: %r",
    "Cancelling cause reader exited abnormally",
    'Unexpected connection close from remote "%s", Connection.Close(reply_code=%r, reply_text=%r)',
    "Server connection %r was stuck. No frames were received in %d seconds.",
    "Connection %r was blocked by: %r",
    "Connection %r was unblocked",
    "Closing channel %r because RPC call %s cancelled",
    "Closing channel %r locally because RPC call %s cancelled before Channel.Open was sent",
    "Consumer %r cancelled by the broker on %r",
)


def _not_reported_by_us(record: logging.LogRecord) -> bool:
    return record.msg not in _REPORTED_BY_US


for _name in ("aiormq.connection", "aiormq.channel"):
    logging.getLogger(_name).addFilter(_not_reported_by_us)
