"""One object holds every setting: argument, then `DURE_*`, then `.env`, then `[tool.dure]`, then default."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from dure import probe
from dure.errors import ConfigurationError, Problem
from dure.url import file_url, scheme

BROKERS = ("dure", "amqp", "amqps")
LEDGERS = ("sqlite", "postgresql", "postgres")
RESULTS = ("dure", "redis", "rediss")

# As browsers send it: lower case, without a path, without a port that the scheme has anyway.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")

# How long a worker may hold a message, in milliseconds, where RabbitMQ lets a queue say so (from 3.12 on): 30 days.
HELD_FOR = 30 * 86_400_000


class Settings(BaseSettings):
    """Every setting of Dure. `load()` reads them and reports all problems at once."""

    model_config = SettingsConfigDict(
        env_prefix="DURE_",
        env_file=".env",
        env_ignore_empty=True,
        pyproject_toml_table_header=("tool", "dure"),
        populate_by_name=True,
        extra="ignore",
        frozen=True,
    )

    home: Path = Field(Path(".dure"), description="Folder of the embedded broker, ledger and results.")
    broker_url: str | None = Field(
        None,
        validation_alias=AliasChoices("DURE_BROKER_URL", "CELERY_BROKER_URL"),
        description="`amqp://…` for RabbitMQ. Unset: the embedded broker in `home`.",
    )
    ledger_url: str | None = Field(
        None, description="`postgresql://…` or `sqlite:///…`. Unset: a SQLite file in `home`."
    )
    result_backend: str | None = Field(
        None,
        validation_alias=AliasChoices("DURE_RESULT_BACKEND", "CELERY_RESULT_BACKEND"),
        description="Celery's result backend (`redis://…`), read for jobs that stock workers ran.",
    )
    host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the gateway listens on; 0 takes a free one.")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Bearer keys that the gateway accepts, comma-separated. Empty: no key is asked for."
    )
    insecure: bool = Field(False, description="Allow an address other than loopback without API keys.")
    body_limit: int = Field(1_048_576, ge=1024, description="Largest request body or WebSocket message, in bytes.")
    token_secret: SecretStr | None = Field(
        None, description="Signs browser tokens; the same for all gateways. Unset: made, and kept in `home`."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may call the gateway from a browser, comma-separated; `*` is any."
    )
    feed_buffer: int = Field(
        1_048_576, ge=65_536, description="Most bytes of a feed that are written before its reader takes any."
    )
    feed_timeout: float = Field(
        30.0, gt=0, le=3600, description="Seconds after which a reader of a feed that takes nothing is cut off."
    )
    capture_level: Literal["debug", "info", "warning", "error", "off"] = Field(
        "info", description="Least level of what a task logs that is kept with its job."
    )
    capture_lines: int = Field(1000, ge=0, description="Most log lines of one attempt that are kept with its job.")
    default_queue: str = Field(
        "celery", min_length=1, max_length=255, description="Queue of a task whose worker announced none."
    )
    queue_type: Literal["quorum", "classic"] = Field(
        "quorum",
        description="Type of the queues that Dure creates on RabbitMQ; set it to also apply it to those that the "
        "Celery application defines.",
    )
    result_limit: int = Field(
        262_144, ge=0, description="Largest result, in bytes of JSON, that a worker puts in its event."
    )
    event_queue: str = Field(
        "dure.events", min_length=1, max_length=255, description="Queue that the recorder reads events from."
    )
    event_limit: int = Field(
        1_000_000, ge=1000, description="Most events kept for an absent recorder; past it the oldest go."
    )
    dead_queue: str = Field(
        "dure.dead",
        min_length=1,
        max_length=255,
        description="Exchange and queue of dead letters: messages that no worker could run to an end.",
    )
    delivery_limit: int = Field(
        20, ge=1, le=1_000_000, description="Deliveries after which a message that never ends is a dead letter."
    )
    settle_after: float = Field(
        300.0, ge=1, description="Seconds of silence after which an open job is asked after, and settled."
    )
    idempotency_ttl: float = Field(86_400.0, ge=1, description="Seconds that an `Idempotency-Key` is kept.")
    feed_entries: int = Field(
        10_000, ge=10, description="Most entries (progress, output, log lines) kept of one job; the oldest go first."
    )
    feed_bytes: int = Field(
        1_048_576, ge=4096, description="Most bytes of entries, as JSON, kept of one job; the oldest go first."
    )
    feed_days: float = Field(7.0, gt=0, le=36_500, description="Days that entries and logs of workflows are kept.")
    ledger_timeout: float = Field(
        10.0, gt=0, description="Seconds that a request waits for the ledger before it is answered with 503."
    )
    worker_health: str | None = Field(
        None, min_length=1, description="Where a worker tells its health: a file, `host:port` or `:port`."
    )
    loop_block_limit: float = Field(
        0.5,
        ge=0,
        le=3600,
        description="Seconds after which a coroutine that holds the loop up is logged with its stack; 0 is never.",
    )
    pool_size: int = Field(8, ge=2, le=200, description="Most connections to PostgreSQL, per process.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["console", "json"] = Field("console", description="How log lines are written.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, PyprojectTomlConfigSettingsSource(settings_cls)

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        return tuple(k.strip() for k in value.split(",") if k.strip()) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _keys_are_long(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(k.get_secret_value()) < 16 for k in keys):
            raise ValueError("each key needs at least 16 characters")
        return keys

    @field_validator("token_secret")
    @classmethod
    def _secret_is_long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < 32:
            raise ValueError("needs at least 32 characters")
        return secret

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        return tuple(o.strip() for o in value.split(",") if o.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin")
        return origins

    @field_validator("worker_health")
    @classmethod
    def _is_file_or_port(cls, place: str | None) -> str | None:
        if place is not None:
            probe.parse(place)
        return place

    @field_validator("broker_url", "ledger_url", "result_backend")
    @classmethod
    def _known_scheme(cls, url: str | None, info: Any) -> str | None:
        known = {"broker_url": BROKERS, "ledger_url": LEDGERS, "result_backend": RESULTS}[info.field_name]
        if url is not None and scheme(url) not in known:
            raise ValueError(f"scheme {scheme(url) or '(none)'!r} is not one of {', '.join(known)}")
        return url

    @property
    def broker(self) -> str:
        return self.broker_url or file_url("dure", self.home / "broker.db")

    @property
    def ledger(self) -> str:
        return self.ledger_url or file_url("sqlite", self.home / "ledger.db")

    @property
    def results(self) -> str | None:
        """The result backend to read: the embedded one beside an embedded broker, else only what was set."""
        if self.result_backend is None and scheme(self.broker) == "dure":
            return file_url("dure", self.home / "results.db")
        return self.result_backend

    def new_queue_type(self, *, defined_by_application: bool) -> Literal["quorum", "classic"]:
        """The type of a queue that is missing.

        Celery declares the queues that an application defines (its default queue, `task_queues`) whenever it sends
        to one, as classic unless told otherwise, and RabbitMQ refuses that where the queue is a quorum queue. So
        those stay classic, unless `queue_type` was set on purpose.
        """
        if defined_by_application and "queue_type" not in self.model_fields_set:
            return "classic"
        return self.queue_type

    def lasting_queue_arguments(self) -> dict[str, Any]:
        """The arguments of the queues that Dure itself reads: nothing in them is given up for being read often.

        RabbitMQ 4 would drop what was delivered twenty times, unless the queue has a limit of its own.
        """
        return {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000} if self.queue_type == "quorum" else {}

    def new_queue_arguments(self, *, defined_by_application: bool) -> dict[str, Any]:
        """The arguments that a missing queue is declared with.

        Those that an application defines get their type and no more, for the same reason; the worker itself sees to
        their dead letters.
        """
        quorum = self.new_queue_type(defined_by_application=defined_by_application) == "quorum"
        arguments: dict[str, Any] = {"x-queue-type": "quorum"} if quorum else {}
        if defined_by_application:
            return arguments
        arguments |= {"x-dead-letter-exchange": self.dead_queue, "x-consumer-timeout": HELD_FOR}
        if quorum:
            # A dead letter leaves its queue when the other one has confirmed it (RabbitMQ 3.10, "at-least-once
            # dead lettering"), which needs the overflow that refuses instead of dropping.
            arguments |= {
                "x-delivery-limit": self.delivery_limit,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        return arguments

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def require_closed(self) -> None:
        """Refuse an open gateway: raises ConfigurationError for a public address without keys."""
        if not (self.is_loopback or self.api_keys or self.insecure):
            raise ConfigurationError(
                [
                    Problem(
                        "host",
                        f"the gateway would listen on {self.host} for everyone, without a key",
                        "set DURE_API_KEYS, or pass --insecure if something in front checks who calls",
                    )
                ]
            )
        if "*" in self.cors_origins and not (self.api_keys or self.insecure):
            raise ConfigurationError(
                [
                    Problem(
                        "cors_origins",
                        "every page in a browser on this machine could use the gateway, without a key",
                        "name the origins, such as http://localhost:3000, or set DURE_API_KEYS",
                    )
                ]
            )


_REMEDIES = {
    "broker_url": "use amqp://user:password@host:5672/vhost, or unset it for the embedded broker",
    "ledger_url": "use postgresql://user:password@host/database, or unset it for SQLite in `home`",
    "result_backend": "use redis://host:6379/0, or unset it",
    "api_keys": "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
    "token_secret": "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
    "worker_health": "use a file such as /run/dure/health.json, or a port such as :8081, or unset it",
    "cors_origins": "write scheme and host, and the port where it is not the usual one: https://shop.example",
}


def load(**arguments: Any) -> Settings:
    """Read the settings; `arguments` that are None count as not given.

    Raises ConfigurationError with every problem found, each with its remedy and without its secret value.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as exc:
        raise ConfigurationError([_problem(error) for error in exc.errors()]) from None


def _problem(error: Any) -> Problem:
    name = _field(str(error["loc"][0])) if error["loc"] else "settings"
    message = str(error["msg"]).removeprefix("Value error, ")
    return Problem(name, message, _REMEDIES.get(name, f"set DURE_{name.upper()} to a fitting value, or unset it"))


def _field(loc: str) -> str:
    return {"CELERY_BROKER_URL": "broker_url", "CELERY_RESULT_BACKEND": "result_backend"}.get(
        loc, loc.removeprefix("DURE_").lower()
    )
