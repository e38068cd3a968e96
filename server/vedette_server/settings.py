"""Configuration of the server: flags over environment (`VEDETTE_…`) over a TOML file over defaults."""

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
    """Everything that can be set. An unknown key is an error, in a flag, the environment or the file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    listen: str = "127.0.0.1:8001"
    http: str = "127.0.0.1:8002"
    tls_cert: Path | None = None  # PEM; with its key, gRPC and HTTP speak TLS
    tls_key: Path | None = None
    tls_client_ca: Path | None = None  # callers show a certificate of this authority's
    tokens: Path | None = None  # a file of `NAME sha256:HASH` lines
    jwks: Path | str | None = None  # the public keys of who makes JWTs: a file, or an https:// address
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_groups: str = ""  # the claim of a JWT that has its subject's groups; empty: none has
    policy: Path | None = None  # who may do what, in TOML; None: whoever shows who it is may do everything
    insecure: bool = False  # listen beyond this machine whoever may call there
    repository: Path = BUNDLED_REPOSITORY
    plugins: tuple[str, ...] = ()  # modules that model versions may import into their workers
    workers: Positive = 1  # processes for each model version
    threads: Positive | None = None  # of each worker; None shares the cores out, so that they are never oversubscribed
    device: str = "cpu"  # as torch names it; several, separated by commas, share the workers out
    max_queued: Positive = 64  # requests that may wait for a version's workers
    max_queued_bytes: Positive = 512 * 2**20  # of their images
    max_streams: Positive = 64  # open at once
    golden_seconds: Annotated[float, Field(ge=0)] = 60.0  # between two proofs that a worker still sees; 0: at start
    # Of the workers' time, for diagnoses beside traffic; they take what is left anyway. 0 switches them off.
    diagnose_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    hang_seconds: Annotated[float, Field(gt=0)] = 60.0  # after which a worker that does nothing is replaced
    # That each worker may use of its own, in bytes (RLIMIT_DATA); None: what the machine or its container has.
    worker_memory_bytes: Annotated[int, Field(ge=2**28)] | None = None
    poll_seconds: Annotated[float, Field(ge=0)] = 0.0  # between two looks at the repository; 0: it is read once
    # For requests without a deadline, or with a longer one. A version that answers nothing for so long is not ready.
    max_request_seconds: Annotated[float, Field(gt=0)] = 30.0
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0  # for what was admitted when the server is told to stop
    triton_metrics: bool = False  # the metrics page has Triton's names too, for dashboards that exist already
    check_invariants: bool = False  # of what was admitted, after each step, for tests: what is broken is logged
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
        """Who may call. Raises `ValueError` for what is there without what belongs to it."""
        pairs = (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert"))
        names = ("jwt_issuer", "jwt_audience")
        jwts = (*(("jwks", name) for name in names), *((name, "jwks") for name in (*names, "jwt_groups")))
        for given, needed in (*pairs, *jwts):
            if getattr(self, given) and not getattr(self, needed):
                msg = f"{given} is of no use without {needed}: give both"
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
        """Flags, then environment, then the file that --config or VEDETTE_CONFIG names."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def devices(self) -> tuple[str, ...]:
        """Each device, as torch names it."""
        return tuple(name.strip() for name in self.device.split(","))

    def threads_per_worker(self, versions: int) -> int:
        """The threads of each worker when `versions` model versions are served."""
        cores = len(os.sched_getaffinity(0))
        return self.threads or max(1, cores // (self.workers * versions))


def load(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """Read the settings; `flags` holds those given on the command line. Raises `ValueError` for what is wrong.

    `config` is a TOML file with others; None: the one that VEDETTE_CONFIG names, if it names one.
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
        msg = f"{config} is larger than {_LARGEST_FILE} bytes: it is not a file of settings"
        raise ValueError(msg)

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return Configured(**flags)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        msg = f"{config} is not TOML: {error}"
        raise ValueError(msg) from error
