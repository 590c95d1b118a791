"""One instance leads, and another takes over when it cannot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster_kit.clock import MAX_WAIT
from cluster_kit.errors import LockTimeout, LockUnavailable, NotStartedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cluster_kit.clock import Duration
    from cluster_kit.locks.lease import Lease

_PAUSE_SECONDS = 1.0


async def lead(acquire: Callable[[Duration], Awaitable[Lease]]) -> AsyncGenerator[Lease]:
    """Yield a lease whenever this instance comes to lead, until the cluster stops.

    Args:
        acquire: waits so many seconds for the lock.
    """
    while True:
        try:
            lease = await acquire(MAX_WAIT)
        except NotStartedError:
            return
        except LockTimeout:
            continue
        except LockUnavailable as exc:
            if not exc.retryable:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        try:
            yield lease
        finally:
            await lease.release()
