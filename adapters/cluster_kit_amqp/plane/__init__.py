"""AMQP 0-9-1 for what happens once for each task: publish, confirm, deliver, settle.

It speaks the protocol itself, on a socket of asyncio, and implements the seam of
`cluster_kit_amqp.link`. References in the form "4.2.3" are to the sections of the AMQP 0-9-1
specification, those in the form "basic.deliver" to the methods in its reference; what RabbitMQ
adds is marked as its own.
"""

from __future__ import annotations
