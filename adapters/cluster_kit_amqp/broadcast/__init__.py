"""Publish and subscribe on RabbitMQ: three transports on one pair of connections."""

from __future__ import annotations
