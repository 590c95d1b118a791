"""What the broker says of a declaration it refused, as an error that names the difference."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cluster_kit.errors import TopologyError
from cluster_kit_amqp.topology import Exchange, Queue

if TYPE_CHECKING:
    from cluster_kit_amqp.topology import Step

_DIFFERS = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<kind>queue|exchange) '(?P<name>.*)' "
    r"in vhost '.*': received (?P<ours>.+) but current is (?P<theirs>.+)$",
    re.DOTALL,
)
_SAME_CRASH_LIMIT = (
    "; it follows from the setting event_queue.crash_limit: have it the same in all instances, or "
    "delete the queue once it is empty"
)
_TYPED_VALUE = re.compile(r"^the value '(.*)' of type '\w+'$", re.DOTALL)


def conflict(step: Step, text: str) -> TopologyError:
    """Return the error for what the broker said of a declaration.

    >>> str(conflict(Queue("shop.mails", {}), "PRECONDITION_FAILED - inequivalent arg "
    ...     "'x-queue-type' for queue 'shop.mails' in vhost '/': received 'quorum' but current "
    ...     "is 'classic'"))
    "queue 'shop.mails': x-queue-type is 'classic' on the broker, 'quorum' expected"
    """
    match = _DIFFERS.search(text)
    if match is None:
        return TopologyError(subject(step), text)
    remedy = _SAME_CRASH_LIMIT if match["argument"] == "x-delivery-limit" else ""
    return TopologyError(
        f"{match['kind']} {match['name']!r}",
        f"{match['argument']} is {_value(match['theirs'])} on the broker, "
        f"{_value(match['ours'])} expected{remedy}",
    )


def _value(text: str) -> str:
    typed = _TYPED_VALUE.match(text)
    return f"'{typed[1]}'" if typed else text


def subject(step: Step) -> str:
    """Return how an error names what a step is about."""
    match step:
        case Exchange():
            return f"exchange {step.name!r}"
        case Queue():
            return f"queue {step.name!r}"
        case _:
            return f"binding of {step.target!r} to {step.source!r}"
