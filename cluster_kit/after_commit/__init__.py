"""Publishing after a commit: what was published in a transaction leaves when that is committed."""

from __future__ import annotations

from cluster_kit.after_commit.parcel import Parcel, PublishFailure
from cluster_kit.after_commit.service import AfterCommit

__all__ = ["AfterCommit", "Parcel", "PublishFailure"]
