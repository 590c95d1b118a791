"""What another program does on the broker, with another client than the adapter's."""

from __future__ import annotations

import pika


def publish(
    url: str, exchange: str, key: str, body: bytes, properties: pika.BasicProperties | None = None
) -> None:
    """Without any metadata of the library; the adapter's client adds a message id of its own."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, body, properties)


def delete_queue(url: str, name: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(name)
