"""An outbox: messages are rows of your transaction, and a relay sends them."""

from __future__ import annotations

from cluster_kit_sqlalchemy.outbox.blocking import BlockingOutbox
from cluster_kit_sqlalchemy.outbox.reports import FailedMessage, OutboxStats
from cluster_kit_sqlalchemy.outbox.service import Outbox

__all__ = ["BlockingOutbox", "FailedMessage", "Outbox", "OutboxStats"]
