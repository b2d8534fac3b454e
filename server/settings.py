"""Every setting, from flags, the environment (`DEVICEOPS_…`) and a TOML file, in that order of precedence."""

import ipaddress
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from domains.device.device_names import refusal
from domains.device.sharing import MOST_JOBS
from domains.model.loaded import LONGEST_STAY_S
from domains.processing.jobs.unread import LONGEST_WAIT_S
from server.users import user_ids


class ConfigError(Exception):
    """The TOML file cannot be used; the text tells the operator why."""


def state_home() -> Path:
    """The folder of this user's program state (XDG base directories; %LOCALAPPDATA% on Windows)."""
    local = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_STATE_HOME")
    return Path(local) if local else Path.home() / ".local" / "state"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. `localhost` is the only name that is accepted."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(BaseSettings):
    """The settings of a server. `deviceops serve --help` shows the flags; a TOML file uses the names below."""

    model_config = SettingsConfigDict(env_prefix="DEVICEOPS_", extra="forbid", validate_default=True)

    insecure_listen: bool = False
    """Whether `host` may be an address that other machines can reach. The port has no encryption and asks for no token."""
    host: str = "127.0.0.1"
    """Address to listen on. One that is not loopback is refused unless `insecure_listen` is set."""
    port: Annotated[int, Field(ge=0, le=65535)] = 50051
    """TCP port; 0 takes a free one and prints it."""
    socket: Path | None = None
    """Also listen on this Unix domain socket."""
    state: Path = Field(default_factory=lambda: state_home() / "deviceops")
    """Folder of the jobs, their journals and the blobs. One server at a time."""
    durability: Literal["process", "power"] = "process"
    """What an acknowledged change survives: `process`, the death of the server; `power`, a loss of power too: each change
    and each picture waits for the disk before it is told."""
    model_roots: Annotated[list[Path], NoDecode] = []
    """Folders to look for models in. Nothing outside them is read; the embedded model needs none."""
    model_poll_s: Annotated[float, Field(ge=0, le=3600)] = 2
    """Interval of the checks for new, changed and missing models in the roots (by size and time); 0: only ScanModels."""
    blob_roots: Annotated[list[Path], NoDecode] = []
    """Folders whose files other processes may hand over as blobs (RegisterBlob); `/dev/shm` for shared memory on Linux."""
    blob_owners: Annotated[list[str], NoDecode] = []
    """Users (names or ids) whose files in the blob roots may be handed over, besides the server's own user."""
    default_model: str = "emoji-sd"
    """Model id for requests that name none."""
    devices: Annotated[list[str], NoDecode] = ["auto"]
    """`auto` (every CUDA device, else the CPU, with DirectML's adapters listed and disabled), or `cpu`, `cuda`, `cuda:0`
    (as nvidia-smi counts), `rocm:0` (as PyTorch counts), `directml` (the fastest), `sim:3` …
    """
    directml_python: Path | None = None
    """The Python of an environment with `deviceops[directml]`, for the workers of `directml`. None: the server's own."""
    sim_script: Path | None = None
    """Script of the simulated devices (TOML); read again when it changes. None: healthy devices."""
    keep_models_s: Annotated[float, Field(ge=0, le=LONGEST_STAY_S)] = 0
    """How long a loaded model stays without being used, if its load does not say it; then it is unloaded. 0: as long as no
    other work needs the room."""
    host_tier_bytes: Annotated[int, Field(ge=0)] | None = None
    """Most bytes of model files that the RAM tier keeps (LoadModel with `tier` HOST, PrefetchModels). None: a quarter of the
    machine's memory, or of the container's."""
    jobs_per_device: Annotated[int, Field(ge=1, le=MOST_JOBS)] | None = None
    """Jobs that share a device, step by step. None: 2 on a CPU, 8 on other devices; GetDevice tells it."""
    queue_capacity: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Jobs that may wait; further ones are refused with QUEUE_FULL."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 300
    """A worker that sends no report for this long hangs: it is killed, and its jobs run again."""
    silence_s: Annotated[float, Field(gt=0)] = 15
    """A device is silent (DEGRADED) when its running work shows no sign of life for this long. Where the usual gap of the
    same stage on that device, or the estimated step, is longer than a third of this: after three times that gap, and at most
    this long after its end."""
    max_step_s: Annotated[float, Field(gt=0)] = 120
    """A size is refused whose step is estimated to take longer on every device that may run it; the estimate is from
    steps of the same model that were measured there. A job with a `run_timeout` for the whole estimated time is accepted."""
    stop_timeout_s: Annotated[float, Field(gt=0)] = 30
    """A worker that has not stopped a job this long after the request is killed; its other jobs run again."""
    heartbeat_s: Annotated[float, Field(gt=0, le=10)] = 10
    """A stream that follows something sends a heartbeat, a message without content, after this long without a message."""
    min_ping_interval_s: Annotated[float, Field(gt=0, le=10)] = 5
    """Shortest interval of a client's HTTP/2 pings on a quiet connection; a client that pings more often is disconnected."""
    max_calls_per_connection: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Open calls of one connection; further calls wait in the client until one ends."""
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 512
    """Open connections; further ones are closed at once. Each takes a file descriptor."""
    handshake_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10
    """A new connection that has not completed the HTTP/2 handshake after this long is closed."""
    idle_connection_s: Annotated[float, Field(gt=0)] = 300
    """A connection without a call for this long is closed; a client connects again with its next call."""
    recheck_s: Annotated[float, Field(gt=0)] = 10
    """How long after its quarantine a device is checked again; doubled after each failed check, up to 5 minutes."""
    leak_window_s: Annotated[float, Field(ge=1)] = 60
    """An owner whose memory grows in four such windows in a row, without more work, is a leak suspect."""
    max_blobs: Annotated[int, Field(ge=1)] = 100_000
    """Most blobs of clients at a time; further ones are refused with QUOTA_EXCEEDED."""
    max_blob_bytes: Annotated[int, Field(ge=0)] | None = None
    """Most bytes of all blobs of clients, in all tiers. None: limited only by memory and disk."""
    keep_blobs_s: Annotated[float, Field(gt=0)] = 24 * 3600
    """How long a client's blob is kept if the request does not say it."""
    keep_jobs_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600
    """How long an ended job and its pictures are kept."""
    trust_clock: bool = False
    """Whether the wall clock counts as right at this start, however it differs from what was stored before. False: after a
    step of more than a minute nothing expires until `ConfirmClock`, or until both clocks agree for an hour."""
    keep_events_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600
    """How long the log of changes keeps an event; it also keeps at most 10,000 events and 16 MiB."""
    prompts_in_lists: bool = True
    """Whether `Job.summary`, which lists and events carry too, begins with a generation's prompt. False: it is empty."""
    default_previews_every_steps: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps between two previews for a watcher whose request names none. 0: no previews."""
    default_preview_edge_px: Annotated[int, Field(ge=16, le=512)] = 128
    """Longer edge of these previews."""
    drain_s: Annotated[float, Field(ge=0)] = 30
    """How long SIGTERM waits for running jobs before it leaves them to the next start."""
    drain_reads_s: Annotated[float, Field(ge=0, le=LONGEST_WAIT_S)] = 10
    """How long SIGTERM then waits for clients to read the pictures of which they were told within this time."""
    max_message_bytes: Annotated[int, Field(ge=64 * 1024, le=64 * 1024 * 1024)] = 16 * 1024 * 1024
    """Largest request that is read; its fields have limits of their own. Send larger data as a blob."""
    log_format: Literal["auto", "text", "json"] = "auto"
    """`auto`: text for a terminal, JSON lines otherwise."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("model_roots", "blob_roots", "blob_owners", "devices", mode="before")
    @classmethod
    def _lists_may_be_text(cls, value: object) -> object:
        """Parse a list from an environment variable: a JSON list, or parts separated by commas."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("host")
    @classmethod
    def _others_are_let_in_on_purpose(cls, host: str, info: ValidationInfo) -> str:
        if not (is_loopback(host) or info.data.get("insecure_listen")):
            raise ValueError(
                f"{host} can be reached from other machines, and the port has no encryption and asks for no token; use "
                "127.0.0.1 (with an SSH tunnel for other machines), or set insecure_listen = true (--insecure-listen)"
            )
        return host

    @field_validator("model_roots", "blob_roots")
    @classmethod
    def _roots_are_folders(cls, roots: list[Path]) -> list[Path]:
        for root in roots:
            if not root.is_dir():
                raise ValueError(f"root {root} is no folder")
        return [root.resolve() for root in roots]

    @field_validator("blob_owners")
    @classmethod
    def _owners_are_users(cls, names: list[str]) -> list[str]:
        user_ids(names)
        return names

    @field_validator("devices")
    @classmethod
    def _devices_are_known_names(cls, names: list[str]) -> list[str]:
        for name in names:
            if reason := refusal(name):
                raise ValueError(reason)
        return names

    @field_validator("directml_python")
    @classmethod
    def _python_is_a_file(cls, python: Path | None) -> Path | None:
        if python is not None and not python.is_file():
            raise ValueError(
                f"there is no interpreter {python}; name the python of the environment with torch-directml"
            )
        return python

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources in order of precedence: flags, environment, the TOML file that DEVICEOPS_CONFIG names."""
        file = os.environ.get("DEVICEOPS_CONFIG")
        sources = (init_settings, env_settings)
        return (*sources, _toml(settings_cls, Path(file))) if file else sources


def _toml(settings_cls: type[BaseSettings], file: Path) -> TomlConfigSettingsSource:
    """The source of a TOML file. Raises `ConfigError` for a missing file, which pydantic-settings would ignore."""
    try:
        tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"DEVICEOPS_CONFIG names {file}, which cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"DEVICEOPS_CONFIG names {file}, which is no TOML: {error}") from error
    return TomlConfigSettingsSource(settings_cls, file)
