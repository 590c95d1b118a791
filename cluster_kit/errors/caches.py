"""Around caches."""

from __future__ import annotations

from cluster_kit.errors.base import ClusterKitError
from cluster_kit.urls import redact_url


class CacheError(ClusterKitError):
    """Around caches."""

    retryable = True


class CacheUnavailable(CacheError):  # noqa: N818 - the name is the contract's
    """The store of a cache, or what tells other instances, gave no usable answer in time.

    What was asked may have happened there.
    """

    cache: str
    reason: str

    def __init__(self, cache: str, reason: str) -> None:
        self.cache, self.reason = cache, redact_url(reason)
        super().__init__(f"cache {cache!r}: {self.reason}")


class CacheLoadTimeout(CacheError, TimeoutError):  # noqa: N818 - reads as what happened
    """A loader took longer than `timeout` seconds. It goes on, and its value will be stored."""

    key: str
    timeout: float

    def __init__(self, key: str, timeout: float) -> None:
        self.key, self.timeout = key, timeout
        super().__init__(f"the value of {key!r} was not loaded within {timeout:g} s")


class CacheRecursion(CacheError, RecursionError):  # noqa: N818 - reads as what happened
    """The loader of a key asked for that key: it would wait for itself."""

    retryable = False
    key: str

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the loader of {key!r} asks for the same key")


class LockError(ClusterKitError):
    """Around locks. `key` is the lock's, without the prefix of the application; `reason` is why."""

    key: str
    reason: str
    retryable = True

    def __init__(self, key: str, reason: str) -> None:
        self.key, self.reason = key, redact_url(reason)
        super().__init__(f"lock {key!r}: {self.reason}")


class LockTimeout(LockError, TimeoutError):  # noqa: N818 - the name is the contract's
    """It was waited for in vain: somebody else held it. `waited` is in seconds."""

    def __init__(self, key: str, waited: float) -> None:
        self.waited: float = waited
        super().__init__(key, f"held by somebody else all of the {waited:.3g} s waited")


class LockUnavailable(LockError):  # noqa: N818 - the name is the contract's
    """The server gave no usable answer in time. What was asked may have happened there."""


class LockLost(LockError):  # noqa: N818 - the name is the contract's
    """It is not ours any more. What it protected may be touched by others from now on."""


class LockAlreadyHeld(LockError):  # noqa: N818 - the name is the contract's
    """The task that asks has it, and would wait for itself; see ``reentrant=True``."""

    retryable = False

    def __init__(self, key: str) -> None:
        super().__init__(key, "this task holds it; ask with reentrant=True to share it")
