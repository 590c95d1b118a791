"""What every adapter has to pass: scenarios written against the public API only."""

from __future__ import annotations
