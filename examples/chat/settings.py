"""Where the model is, and where the gateway is: `CHAT_MODEL=… make chat`."""

from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

OPENAI = "https://api.openai.com/v1"
STAND_IN = "http://127.0.0.1:8002/v1"


class Model(BaseSettings):
    """Read by the worker. The variables of the `openai` client count too; without a key the stand-in answers."""

    model_config = SettingsConfigDict(env_prefix="CHAT_", populate_by_name=True)

    base_url: str | None = Field(None, validation_alias=AliasChoices("CHAT_BASE_URL", "OPENAI_BASE_URL"))
    api_key: SecretStr | None = Field(None, validation_alias=AliasChoices("CHAT_API_KEY", "OPENAI_API_KEY"))
    model: str = "gpt-5-mini"
    instructions: str = "Answer in plain words and short sentences. Put code between lines of three backticks."
    longest: int = Field(2_000, ge=1, description="Most tokens of one answer.")
    patience: float = Field(60, gt=0, description="Seconds to wait for the next piece of an answer.")

    @property
    def endpoint(self) -> str:
        return self.base_url or (OPENAI if self.api_key else STAND_IN)

    @property
    def name(self) -> str:
        return "stand-in" if self.endpoint == STAND_IN else self.model

    @property
    def key(self) -> str:
        return self.api_key.get_secret_value() if self.api_key else "none"


class Site(BaseSettings):
    """Read by the web application. With several gateways and no balancer the page takes the next when one is gone."""

    model_config = SettingsConfigDict(env_prefix="CHAT_")

    gateways: Annotated[tuple[str, ...], NoDecode] = ("http://127.0.0.1:8000",)
    gateway_key: SecretStr | None = Field(None, description="One of DURE_API_KEYS, where the gateways ask for one.")

    @field_validator("gateways", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(url.strip().rstrip("/") for url in value.split(",")) if isinstance(value, str) else value
