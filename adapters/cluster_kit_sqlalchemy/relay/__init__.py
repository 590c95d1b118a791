"""Sends what is in an outbox."""
