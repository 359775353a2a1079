"""Where files are kept, and how large they may be: `MEDIA_STORE=s3://bucket/media make media`."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Media(BaseSettings):
    """Read by the worker and by the web application."""

    model_config = SettingsConfigDict(env_prefix="MEDIA_")

    store: str = Field(str(Path(".dure/media").absolute()), description="A folder, or a URL that fsspec knows.")
    largest: int = Field(200 * 2**20, ge=1, description="Most bytes of an upload.")
    longest: float = Field(1800, gt=0, description="Most seconds that a video may play.")
    patience: float = Field(3600, gt=0, description="Most seconds that one run of ffmpeg may take.")
    threads: int = Field(2, ge=1, description="Of one run of ffmpeg.")
    gateway: str = Field("http://127.0.0.1:8000", description="Where the page finds the gateway.")
    gateway_key: SecretStr | None = Field(None, description="One of DURE_API_KEYS, where the gateway asks for one.")
