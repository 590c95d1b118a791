"""Questions to the broker, on aiormq, which is loaded with the first of them."""

from __future__ import annotations
