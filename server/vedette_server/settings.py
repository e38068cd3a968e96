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
from vedette_server.logs import Level

BUNDLED_REPOSITORY = Path(__file__).parent / "demo" / "repository"
_LARGEST_FILE = 2**20  # bytes

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """All settings. An unknown key is an error, in a flag, the environment or the file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    listen: str = "127.0.0.1:8001"
    """Address for gRPC: `HOST:PORT` or `unix:PATH`."""
    http: str = "127.0.0.1:8002"
    """Address for metrics and health: `HOST:PORT`."""
    tls_cert: Path | None = None
    """The server's certificate chain, PEM. With its key, gRPC and HTTP use TLS."""
    tls_key: Path | None = None
    """Key of `tls_cert`, PEM."""
    tls_client_ca: Path | None = None
    """Authority that verifies client certificates, PEM."""
    tokens: Path | None = None
    """File of accepted tokens, with lines of `NAME sha256:HASH`."""
    jwks: Path | str | None = None
    """Public keys that verify JWTs: a file or an `https://` URL."""
    jwt_issuer: str = ""
    """Issuer of the JWTs."""
    jwt_audience: str = ""
    """Audience of the JWTs."""
    jwt_groups: str = ""
    """Claim with the subject's groups. Empty: no groups."""
    policy: Path | None = None
    """TOML file of access rules. Unset: every authenticated caller may do everything."""
    insecure: bool = False
    """Listen beyond this machine without access control."""
    repository: Path = BUNDLED_REPOSITORY
    """The model repository. The default holds the bundled model."""
    plugins: tuple[str, ...] = ()
    """Modules that versions may import in their workers."""
    workers: Positive = 1
    """Worker processes per model version."""
    threads: Positive | None = None
    """Threads per worker. Unset: the cores are divided among the workers, without oversubscription."""
    device: str = "cpu"
    """Device as named by torch. Several, separated by commas, share the workers."""
    max_queued: Positive = 64
    """Requests that may wait for a version's workers."""
    max_queued_bytes: Positive = 512 * 2**20
    """Bytes of images that may wait for a version's workers."""
    max_streams: Positive = 64
    """Streams that may be open at once."""
    golden_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between golden images on each worker. 0: only when it starts."""
    diagnose_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of the workers' time for diagnoses while there is traffic. Idle time is used anyway. 0 disables them."""
    hang_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without progress after which a worker is replaced."""
    worker_memory_bytes: Annotated[int, Field(ge=2**28)] | None = None
    """Limit of each worker's private memory, in bytes (`RLIMIT_DATA`). Unset: that of the machine or container."""
    poll_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Seconds between scans of the repository for new and removed versions. 0: it is read once."""
    model_control: bool = False
    """Let callers load and unload models by the Open Inference Protocol."""
    max_request_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Deadline of requests with none, or a longer one. A version that answers nothing for that long is not ready."""
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0
    """Seconds for admitted requests when the server stops."""
    triton_metrics: bool = False
    """Add metrics under Triton's names, for existing dashboards."""
    check_invariants: bool = False
    """Check admission after each step, and log violations. For tests."""
    log_format: Literal["console", "json"] = "console"
    """Format of the log."""
    log_level: Level = "info"
    """Least severe lines of the log. `debug` includes those of libraries, which are otherwise logged from `warning`."""

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
