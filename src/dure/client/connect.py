"""The link that a broker URL asks for."""

from __future__ import annotations

from dure.client.embedded import EmbeddedLink
from dure.client.rabbitmq import RabbitLink
from dure.link import Link
from dure.settings import Settings
from dure.url import scheme


def connect(settings: Settings) -> Link:
    """A link that is not open yet."""
    return EmbeddedLink(settings) if scheme(settings.broker) == "dure" else RabbitLink(settings)
