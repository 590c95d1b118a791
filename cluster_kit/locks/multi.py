"""Several locks as one."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from cluster_kit.locks.bond import Bond
from cluster_kit.locks.states import LeaseState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence

    from cluster_kit.clock import Clock
    from cluster_kit.locks.lease import Lease

_WORST_FIRST = (LeaseState.LOST, LeaseState.RELEASED, LeaseState.SUSPECT)


class MultiLease:
    """Leases of several locks, held together. `leases` has each by its key."""

    def __init__(self, leases: Mapping[str, Lease]) -> None:
        self.leases: dict[str, Lease] = dict(leases)

    def __repr__(self) -> str:
        return f"<MultiLease {', '.join(map(repr, self.leases))} {self.state.value}>"

    @property
    def fences(self) -> dict[str, int]:
        """The fence of each, by key.

        Raises:
            LockLost: one is not ours any more.
        """
        return {key: lease.fence for key, lease in self.leases.items()}

    @property
    def state(self) -> LeaseState:
        """The worst state of all."""
        states = {lease.state for lease in self.leases.values()}
        return next((state for state in _WORST_FIRST if state in states), LeaseState.HELD)

    def valid_for(self) -> float:
        """Return the seconds for which all are certainly ours."""
        return min(lease.valid_for() for lease in self.leases.values())

    def check(self) -> None:
        """Do nothing while all are ours.

        Raises:
            LockLost: one is not.
        """
        for lease in self.leases.values():
            lease.check()


class Acquire(Protocol):
    """Acquires one lock; waits at most `timeout` seconds for it."""

    def __call__(self, key: str, /, *, bond: Bond, timeout: float) -> Awaitable[Lease]:
        """Return its lease, whose body is tied by `bond`."""
        ...


@asynccontextmanager
async def hold_all(
    keys: Sequence[str], timeout: float, clock: Clock, acquire: Acquire
) -> AsyncGenerator[MultiLease]:
    """Hold all, taken in the given order; `timeout` seconds are for all together.

    However many of them are lost, the body is cancelled once, so that its clean-up can end.
    """
    end = clock.monotonic() + timeout
    leases: dict[str, Lease] = {}
    bond = Bond()
    async with AsyncExitStack() as stack:
        for key in keys:
            left = max(end - clock.monotonic(), 0.0) if timeout else 0.0
            lease = await acquire(key, bond=bond, timeout=left)
            leases[key] = await stack.enter_async_context(lease)
        yield MultiLease(leases)
