"""A queue of an instance's own that the broker gives to an earlier connection, too.

A connection that was cut on this side alone lives on at the broker until its heartbeat is missed.
What comes by then is given to that one, and when it ends to the next, before all else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit_amqp.connection.patience import Patience, is_set_within

if TYPE_CHECKING:
    from cluster_kit_amqp.broadcast.source import Source
    from cluster_kit_amqp.link import Link

LATE = "the broker has not noticed yet that an earlier connection of this instance has ended"

_LOOK = 0.1  # seconds between two looks


async def until_alone(source: Source, link: Link, wake: asyncio.Event, patience: Patience) -> None:
    """Look until nobody else consumes, and set `wake` then, or return where it is set before.

    Raises:
        LinkError: there is nothing to be seen; `TimeoutError` where the broker does not answer.
    """
    while source.shared:
        if await is_set_within(wake, _LOOK):
            return
        async with patience.limited():
            await source.look(link)
    wake.set()
