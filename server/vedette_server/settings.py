"""Configuration of the server: flags override the environment (`VEDETTE_…`), a TOML file, and defaults."""

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from vedette_server import addresses, environment
from vedette_server.access import fetched
from vedette_server.access.access import AccessSources
from vedette_server.environment import PREFIX

BUNDLED_REPOSITORY = Path(__file__).parent / "demo" / "repository"
_LARGEST_FILE = 2**20  # bytes

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """All settings. An unknown key is an error, in a flag, the environment or the file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    listen: str = "127.0.0.1:8001"
    http: str = "127.0.0.1:8002"
    tls_cert: Path | None = None  # PEM; with its key, gRPC and HTTP use TLS
    tls_key: Path | None = None
    tls_client_ca: Path | None = None  # authority for client certificates
    tokens: Path | None = None  # a file of `NAME sha256:HASH` lines
    jwks: Path | str | None = None  # public keys that verify JWTs: a file or an https:// URL
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_groups: str = ""  # claim with the subject's groups; empty: no groups
    policy: Path | None = None  # TOML file of access rules; None: every authenticated caller may do everything
    insecure: bool = False  # listen beyond this machine without access control
    repository: Path = BUNDLED_REPOSITORY
    plugins: tuple[str, ...] = ()  # modules that versions may import in their workers
    workers: Positive = 1  # processes per model version
    threads: Positive | None = None  # per worker; None divides the cores among workers, without oversubscription
    device: str = "cpu"  # as named by torch; several, separated by commas, share the workers
    max_queued: Positive = 64  # requests waiting for a version's workers
    max_queued_bytes: Positive = 512 * 2**20  # of their images
    max_streams: Positive = 64  # open at once
    golden_seconds: Annotated[float, Field(ge=0)] = 60.0  # between golden images on each worker; 0: at start only
    # Share of workers' time for diagnoses while there is traffic; idle time is used anyway. 0 disables them.
    diagnose_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    hang_seconds: Annotated[float, Field(gt=0)] = 60.0  # without progress until a worker is replaced
    # Limit of each worker's private memory, in bytes (RLIMIT_DATA); None: that of the machine or container.
    worker_memory_bytes: Annotated[int, Field(ge=2**28)] | None = None
    poll_seconds: Annotated[float, Field(ge=0)] = 0.0  # between scans of the repository; 0: read once
    # For requests with no deadline or a longer one. A version that answers nothing for that long is not ready.
    max_request_seconds: Annotated[float, Field(gt=0)] = 30.0
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0  # for admitted requests when the server stops
    triton_metrics: bool = False  # add metrics under Triton's names, for existing dashboards
    check_invariants: bool = False  # check admission after each step, and log violations; for tests
    log_format: Literal["console", "json"] = "console"

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        return str(addresses.grpc(value))

    @field_validator("http")
    @classmethod
    def _http(cls, value: str) -> str:
        return str(addresses.tcp(value))

    @field_validator("jwks", mode="before")
    @classmethod
    def _jwks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if "://" not in value:
            return Path(value)
        fetched.check(value)
        return value

    @property
    def sources(self) -> AccessSources:
        """The files that define who may call. Raises `ValueError` if one is given without its counterpart."""
        pairs = (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert"))
        names = ("jwt_issuer", "jwt_audience")
        jwts = (*(("jwks", name) for name in names), *((name, "jwks") for name in (*names, "jwt_groups")))
        for given, needed in (*pairs, *jwts):
            if getattr(self, given) and not getattr(self, needed):
                msg = f"{given} requires {needed}: give both"
                raise ValueError(msg)
        return AccessSources(**{field.name: getattr(self, field.name) for field in dataclasses.fields(AccessSources)})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, then the file in --config or VEDETTE_CONFIG."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, as named by torch."""
        return tuple(name.strip() for name in self.device.split(","))

    def threads_per_worker(self, versions: int) -> int:
        """Return the threads per worker if `versions` model versions are served."""
        cores = len(os.sched_getaffinity(0))
        return self.threads or max(1, cores // (self.workers * versions))


def load(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """Load the settings; `flags` are those from the command line. Raises `ValueError` for invalid ones.

    `config` is a TOML file with others; None: the one in VEDETTE_CONFIG, if set.
    """
    if unknown := environment.unknown(Settings.model_fields):
        msg = f"unknown environment variables: {', '.join(unknown)}"
        raise ValueError(msg)
    if config is None and (named := os.environ.get(PREFIX + "CONFIG")):
        config = Path(named)
    if config and not config.is_file():
        msg = f"no such file: {config}"
        raise ValueError(msg)
    if config and config.stat().st_size > _LARGEST_FILE:
        msg = f"{config} is larger than {_LARGEST_FILE} bytes: it is not a settings file"
        raise ValueError(msg)

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return Configured(**flags)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        msg = f"{config} is not TOML: {error}"
        raise ValueError(msg) from error
