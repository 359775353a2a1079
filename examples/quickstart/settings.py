"""How long the quickstart's tasks take, in seconds: `QUICKSTART_ADD_SECONDS=1 make up`."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Durations(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="QUICKSTART_")

    add_seconds: float = Field(20, ge=0)
    multi_seconds: float = Field(2, ge=0)
    sum_seconds: float = Field(2, ge=0)
