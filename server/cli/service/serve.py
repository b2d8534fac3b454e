"""`deviceops serve`: flags become settings, and the server runs until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from server.cli.console.failure import USAGE, CliError
from server.cli.service.start_checks import NO_THREADS, no_descriptors, spare_threads, start_faults

if TYPE_CHECKING:
    from server.settings import Settings


def serve(
    # One parameter for each field of `Settings`, with its name (a test compares the two).
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    insecure_listen: Annotated[
        bool | None,
        typer.Option(
            "--insecure-listen/--no-insecure-listen",
            help="Allow a host that other machines can reach, without encryption or token. [default: no]",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one. [default: 50051]")] = None,
    socket: Annotated[Path | None, typer.Option(help="Also listen on this Unix domain socket.")] = None,
    state: Annotated[Path | None, typer.Option(help="Folder of jobs and pictures.")] = None,
    durability: Annotated[
        Literal["process", "power"] | None,
        typer.Option(help="What an acknowledged change survives: the server's death, or a loss of power too."),
    ] = None,
    model_roots: Annotated[
        list[Path] | None,
        typer.Option("--model-root", help="Folder to look for models in; may be repeated. The demo model needs none."),
    ] = None,
    model_poll_s: Annotated[
        float | None, typer.Option(help="Seconds between two looks for changed models; 0: none. [default: 2]")
    ] = None,
    default_model: Annotated[str | None, typer.Option(help="Model of requests that name none.")] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option("--device", help="`auto`, `cpu`, `cuda:0`, `rocm:0`, `sim:3` …; may be repeated. [default: auto]"),
    ] = None,
    directml_python: Annotated[
        Path | None,
        typer.Option(help="Python of the environment with `deviceops[directml]`. [default: the server's own]"),
    ] = None,
    sim_script: Annotated[
        Path | None, typer.Option(help="TOML file of what the simulated devices are and do. [default: healthy ones]")
    ] = None,
    host_tier_bytes: Annotated[
        int | None,
        typer.Option(help="Bytes of model files to keep in host memory at most. [default: a quarter of the memory]"),
    ] = None,
    keep_models_s: Annotated[
        float | None,
        typer.Option(
            help="Seconds that an unused model stays loaded; 0: until other work needs the room. [default: 0]"
        ),
    ] = None,
    jobs_per_device: Annotated[
        int | None, typer.Option(help="Jobs that share a device. [default: 2 on a CPU, 8 on others]")
    ] = None,
    queue_capacity: Annotated[int | None, typer.Option(help="Jobs that may wait. [default: 10000]")] = None,
    stall_timeout_s: Annotated[
        float | None, typer.Option(help="Seconds of silence after which a device hangs. [default: 300]")
    ] = None,
    stop_timeout_s: Annotated[
        float | None, typer.Option(help="Seconds until a job that does not stop loses its worker. [default: 30]")
    ] = None,
    silence_s: Annotated[
        float | None,
        typer.Option(help="Seconds without a sign of life after which a device is degraded. [default: 15]"),
    ] = None,
    max_step_s: Annotated[
        float | None, typer.Option(help="Longest step in seconds; sizes that take longer are refused. [default: 120]")
    ] = None,
    recheck_s: Annotated[
        float | None, typer.Option(help="Seconds until a quarantined device is checked again. [default: 10]")
    ] = None,
    heartbeat_s: Annotated[
        float | None, typer.Option(help="Longest silence of a stream that follows something, up to 10 s. [default: 10]")
    ] = None,
    min_ping_interval_s: Annotated[
        float | None, typer.Option(help="How often a client may ping a quiet connection. [default: 5]")
    ] = None,
    max_calls_per_connection: Annotated[
        int | None, typer.Option(help="Open calls of one connection; further ones wait. [default: 256]")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Open connections; further ones are closed. [default: 512]")
    ] = None,
    handshake_timeout_s: Annotated[
        float | None, typer.Option(help="Seconds until a connection must speak HTTP/2. [default: 10]")
    ] = None,
    idle_connection_s: Annotated[
        float | None, typer.Option(help="Seconds until a connection without calls is closed. [default: 300]")
    ] = None,
    leak_window_s: Annotated[
        float | None, typer.Option(help="Memory that grows in four such windows is a leak suspect. [default: 60]")
    ] = None,
    blob_roots: Annotated[
        list[Path] | None,
        typer.Option("--blob-root", help="Folder whose files may be handed over as blobs; may be repeated."),
    ] = None,
    blob_owners: Annotated[
        list[str] | None,
        typer.Option(
            "--blob-owner", help="User whose files may be handed over too; may be repeated. [default: the server's own]"
        ),
    ] = None,
    max_blobs: Annotated[int | None, typer.Option(help="Blobs of clients at a time. [default: 100000]")] = None,
    max_blob_bytes: Annotated[
        int | None, typer.Option(help="Bytes that these may hold together. [default: no limit]")
    ] = None,
    keep_blobs_s: Annotated[
        float | None, typer.Option(help="Seconds that a client's blob is kept. [default: one day]")
    ] = None,
    keep_jobs_s: Annotated[
        float | None, typer.Option(help="Seconds that an ended job is kept. [default: seven days]")
    ] = None,
    trust_clock: Annotated[
        bool | None,
        typer.Option(
            "--trust-clock/--no-trust-clock", help="Let the date count as right, whatever was stored. [default: no]"
        ),
    ] = None,
    keep_events_s: Annotated[
        float | None, typer.Option(help="Seconds that the log of changes keeps an event. [default: seven days]")
    ] = None,
    prompts_in_lists: Annotated[
        bool | None,
        typer.Option(
            "--prompts-in-lists/--no-prompts-in-lists", help="Show the first words of prompts in lists. [default: yes]"
        ),
    ] = None,
    default_previews_every_steps: Annotated[
        int | None,
        typer.Option(help="Previews for watchers who ask for none: after every so many steps. [default: 0, none]"),
    ] = None,
    default_preview_edge_px: Annotated[
        int | None, typer.Option(help="Longer edge of these previews. [default: 128]")
    ] = None,
    drain_s: Annotated[float | None, typer.Option(help="Seconds that SIGTERM gives to jobs. [default: 30]")] = None,
    drain_reads_s: Annotated[
        float | None, typer.Option(help="Seconds that clients then have to read their pictures. [default: 10]")
    ] = None,
    max_message_bytes: Annotated[
        int | None, typer.Option(help="Largest request that is read. [default: 16 MiB]")
    ] = None,
    log_format: Annotated[Literal["auto", "text", "json"] | None, typer.Option(help="How the log is written.")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="What the log tells.")
    ] = None,
    stdio: Annotated[
        bool,
        typer.Option(
            "--stdio",
            help="Serve the process that started this one over stdin and stdout, and no port that is not named.",
        ),
    ] = False,
    end_with_stdin: Annotated[bool, typer.Option("--end-with-stdin", hidden=True)] = False,
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    What no flag says comes from the environment (DEVICEOPS_PORT, DEVICEOPS_DEVICES=cpu,cuda:0 …), then from the TOML
    file that DEVICEOPS_CONFIG names.
    """
    given = locals()
    end_with_stdin, stdio = given.pop("end_with_stdin"), given.pop("stdio")
    fds = _take_stdio() if stdio else None
    # An unused repeatable flag is an empty list or None, depending on typer's version.
    settings = {name: value for name, value in given.items() if value is not None and value != []}
    raise typer.Exit(_run(settings, end_with_stdin and not stdio, fds))


def _take_stdio() -> tuple[int, int]:
    """Reserve stdin and stdout for frames; from now on, prints of this process go to stderr."""
    from server.stdio.pipe import protect_stdout

    return protect_stdout()


def _run(given: dict[str, Any], end_with_stdin: bool, stdio_fds: tuple[int, int] | None) -> int:
    from domains.threads import bounded_starts

    with bounded_starts():
        return _served(_settings(given), end_with_stdin, stdio_fds)


def _served(settings: Settings, end_with_stdin: bool, stdio_fds: tuple[int, int] | None) -> int:
    if not spare_threads():
        raise CliError(NO_THREADS)
    if fault := no_descriptors():
        raise CliError(fault)
    if faults := start_faults(settings):
        raise _unusable(faults)
    from server import app

    if end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    return app.run(settings, stdio_fds)


def _settings(given: dict[str, Any]) -> Settings:
    from pydantic import ValidationError

    from server.settings import ConfigError, Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        raise _unusable(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()) from error
    except ConfigError as error:
        raise CliError(str(error), USAGE) from error
    except RuntimeError as error:
        # `Path.home()` raises for a user without HOME and without an entry in passwd.
        raise _unusable(["state: this user has no home folder; name a folder with --state, or set HOME"]) from error


def _unusable(faults: Iterable[str]) -> CliError:
    return CliError("\n".join(["these settings cannot be used:", *(f"  {fault}" for fault in faults)]), USAGE)


def _end_with_stdin() -> None:
    """End the server as SIGTERM does when stdin closes, because its parent process has ended."""
    # `os.read`, because a buffered reader's lock in this thread would block the interpreter's end.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    signal.raise_signal(signal.SIGTERM)
