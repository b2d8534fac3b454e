"""The commands, and the one place where an error becomes a line on stderr and an exit code."""

import os
import sys
from collections.abc import Sequence

import typer

from domains.errors import DeviceOpsError
from server.cli import blobs, demo, device, devices, events, generate, jobs, memory, models, serve, status, watch
from server.cli.failure import INTERRUPTED, USAGE, CliError

app = typer.Typer(
    name="deviceops",
    help="Pictures from text, through a server that owns the devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    serve.serve,
    generate.generate,
    demo.demo,
    jobs.jobs,
    watch.watch,
    jobs.cancel,
    devices.devices,
    models.models,
    events.events,
    status.status,
):
    app.command()(command)
for name, group in (("device", device.app), ("memory", memory.app), ("blobs", blobs.app)):
    app.add_typer(group, name=name)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` default to those of the process. Returns the exit code."""
    # gRPC's own log repeats, in its words and in several lines, what we say in one.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        app(args=None if arguments is None else list(arguments), prog_name="deviceops")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except CliError as error:
        return _tell(error.message, error.exit_code)
    except DeviceOpsError as error:
        return _tell(f"{error.message} [{error.reason}]", USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _tell(message: str, exit_code: int) -> int:
    print(f"deviceops: {message}", file=sys.stderr)
    return exit_code
