"""What applications with a database of SQLAlchemy need."""

from __future__ import annotations
