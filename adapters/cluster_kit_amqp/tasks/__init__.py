"""The event queue on RabbitMQ: `adapter` puts the parts together."""

from __future__ import annotations
