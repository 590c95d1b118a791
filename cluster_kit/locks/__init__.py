"""Locks: they hold, they tell when they no longer do, and they wake the next in line."""

from __future__ import annotations

from cluster_kit.locks.lease import Lease
from cluster_kit.locks.multi import MultiLease
from cluster_kit.locks.rates import RateLimit
from cluster_kit.locks.semaphore import Semaphore
from cluster_kit.locks.service import LockManager
from cluster_kit.locks.states import LeaseState
from cluster_kit.locks.stats import LockStats

__all__ = [
    "Lease",
    "LeaseState",
    "LockManager",
    "LockStats",
    "MultiLease",
    "RateLimit",
    "Semaphore",
]
