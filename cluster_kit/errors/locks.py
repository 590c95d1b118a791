"""Around locks."""

from __future__ import annotations

from cluster_kit.errors.base import ClusterKitError
from cluster_kit.urls import redact_url


class LockError(ClusterKitError):
    """Around locks. `key` is the lock's, without the prefix of the application; `reason` is why."""

    key: str
    reason: str
    retryable = True

    def __init__(self, key: str, reason: str) -> None:
        self.key, self.reason = key, redact_url(reason)
        super().__init__(f"lock {key!r}: {self.reason}")


class LockTimeout(LockError, TimeoutError):  # noqa: N818 - the name is the contract's
    """It was waited for in vain: somebody else held it, or `why`. `waited` is in seconds."""

    def __init__(self, key: str, waited: float, why: str = "held by somebody else") -> None:
        self.waited: float = waited
        super().__init__(key, f"{why} all of the {waited:.3g} s waited" if waited else why)


class LockUnavailable(LockError):  # noqa: N818 - the name is the contract's
    """The server gave no usable answer in time. What was asked may have happened there.

    `retryable` is False where waiting does not help: the server refuses who we are.
    """

    def __init__(self, key: str, reason: str, *, retryable: bool = True) -> None:
        self.retryable = retryable
        super().__init__(key, reason)


class LockLost(LockError):  # noqa: N818 - the name is the contract's
    """It is not ours any more. What it protected may be touched by others from now on."""


class LockAlreadyHeld(LockError):  # noqa: N818 - the name is the contract's
    """The task that asks has it, and would wait for itself; see ``reentrant=True``."""

    retryable = False

    def __init__(self, key: str) -> None:
        super().__init__(key, "this task holds it; ask with reentrant=True to share it")
