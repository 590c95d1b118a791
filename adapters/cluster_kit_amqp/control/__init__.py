"""What is declared and asked: the seams for it, its connections, what must be there."""

from __future__ import annotations
