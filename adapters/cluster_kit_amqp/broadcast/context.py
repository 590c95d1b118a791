"""What the attachments of one adapter share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cluster_kit.broadcast import Binding
    from cluster_kit.ports import AdapterContext
    from cluster_kit_amqp.connection.supervised import Connection
    from cluster_kit_amqp.health import Problems
    from cluster_kit_amqp.link import Incoming

TellGap = Callable[[Collection["Binding"], float, str], None]


class AttachmentContext(NamedTuple):
    """What the attachments of one adapter share.

    Attributes:
        connection: that consumes.
        context: of the port.
        problems: what is wrong now.
        hand_over: takes a message.
        tell_gap: takes bindings, since when and why messages of theirs may be missing.
    """

    connection: Connection
    context: AdapterContext
    problems: Problems
    hand_over: Callable[[Incoming], None]
    tell_gap: TellGap
