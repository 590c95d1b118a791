"""An inbox: the effects of a message in your database happen once."""

from __future__ import annotations

from cluster_kit_sqlalchemy.inbox.service import Inbox, InboxStats

__all__ = ["Inbox", "InboxStats"]
