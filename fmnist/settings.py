"""WHERE things are and what may be used: one table, read from the environment.

Every row is a variable, `FMNIST_` and the field's name in capitals. Only `workspace.py` reads it; `embedded.py` is
handed it.
"""

import os
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "FMNIST_"
RESTORING = "restoring"
"""The folder in `home` with what a restore has not put in its place yet; there for moments, or after a kill."""


def checkout_root(start: Path) -> Path | None:
    """The folder at or above `start` that is a checkout of this project, if there is one."""
    for folder in (start, *start.parents):
        if (folder / "fmnist" / "settings.py").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    return None


def _base() -> Path:
    here = Path.cwd()
    return checkout_root(here) or here


class Settings(BaseSettings):
    """The table of settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    home: Path = Field(
        default_factory=lambda: _base() / "var", description="everything that runs write: data cache, runs, models"
    )
    data: Path = Field(
        default_factory=lambda: _base() / "data",
        description="where data sets are dropped in: two CSV or four IDX files",
    )
    download: bool = Field(True, description="whether data that are not there may be fetched")
    connect_timeout: float = Field(5, gt=0, le=300, description="seconds to wait for a download address to connect")
    tracking: bool = Field(True, description="whether runs are sent to MLflow and TensorBoard")
    tracking_uri: str | None = Field(
        None,
        validation_alias="MLFLOW_TRACKING_URI",
        description="where MLflow keeps runs: a server's address, or a database",
    )
    experiment: str = Field(
        "fashion-mnist", validation_alias="MLFLOW_EXPERIMENT_NAME", description="the experiment that runs belong to"
    )
    model_name: str = Field("fashion-mnist", description="the registered model whose versions are the trained models")
    sync_wait: float = Field(
        60,
        ge=0,
        description="seconds that a finished training waits until everything has reached MLflow and TensorBoard",
    )
    host: str = Field(
        "127.0.0.1", description="the address that servers listen on; `0.0.0.0` lets the whole network reach them"
    )
    notebook_port: int = Field(8888, ge=1, le=65535, description="the port of JupyterLab")
    tensorboard_port: int = Field(6006, ge=1, le=65535, description="the port of TensorBoard")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="the port of MLflow")
    service_port: int = Field(8000, ge=1, le=65535, description="the port of the service and its page")
    allowed_hosts: str = Field(
        "",
        description="further names, with commas, for service, MLflow and TensorBoard; `*` allows any",
    )
    api_key_file: Path | None = Field(None, description="a file with the key that the service asks clients for")
    poll_seconds: float = Field(2, ge=0.1, le=3600, description="how often the service looks for a new champion")
    log_share: float = Field(
        0.001, ge=0, le=1, description="the share of answered requests that the service logs; failures it logs all"
    )

    @field_validator("home", "data", "api_key_file")
    @classmethod
    def _expanded(cls, folder: Path | None) -> Path | None:
        return folder and Path(os.path.expanduser(folder))  # noqa: PTH111 - Path's own raises for a user who is not there

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable that sets a field; what is no field stays as it is."""
        known = cls.model_fields.get(field)
        return field if known is None else str(known.validation_alias or PREFIX + field.upper())

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_names(cls, values: Any) -> Any:
        known = {variable for name in cls.model_fields if (variable := cls.variable(name)).startswith(PREFIX)}
        for name in sorted(os.environ):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                raise ValueError(name, f"there is no such setting; there are {', '.join(sorted(known))}")
        return values
