"""Private RabbitMQ, Redis and PostgreSQL servers, from what the machine has installed.

    with RabbitMQ() as rabbitmq:
        url = rabbitmq.vhost()          # a fresh vhost
        rabbitmq.kill()                 # SIGKILL, data stays
        rabbitmq.start()                # same port, same data

The other two are `Redis` and `PostgreSQL`, with `database()` in place of `vhost()`.

Each server listens on a free loopback port and keeps its data in a temporary folder, both for the life of the handle.
It runs under `supervisor.py`, so it ends with us even when we are killed. By default nothing is made safe on disk;
`durable=True` is for measurements and for restarts that must keep data.
"""

from tests.services.fleet import Fleet
from tests.services.postgres import PostgreSQL
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.service import Service, ServiceFailed

__all__ = ["Fleet", "PostgreSQL", "RabbitMQ", "Redis", "Service", "ServiceFailed"]
