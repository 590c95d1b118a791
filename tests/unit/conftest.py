from __future__ import annotations

from hypothesis import settings

# The same examples everywhere, and no verdict on how fast the machine is.
settings.register_profile("unit", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("unit")
