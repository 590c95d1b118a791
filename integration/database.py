"""A database of PostgreSQL for one scenario after the other: making another takes far longer."""

from __future__ import annotations

import psycopg

_END_ALL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def empty(url: str) -> None:
    """Remove all tables, whatever a scenario that failed has left and whoever is connected."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (_END_ALL, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
            connection.execute(statement)
