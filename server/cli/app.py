"""The commands, and the one place where an error becomes a line on stderr and an exit code."""

import errno
import os
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from domains.errors import DeviceOpsError
from domains.system_errors import NO_FRAME
from server.cli.console.failure import INTERRUPTED, USAGE, CliError
from server.cli.console.printing import emit, notice
from server.cli.devices import device, devices
from server.cli.generation import demo, generate, prompt, reproduce
from server.cli.jobs import events, job, jobs, sessions, watch
from server.cli.memory import blobs, memory
from server.cli.models import models
from server.cli.service import clock, completion, serve, status
from server.cli.service.start_checks import NO_THREADS

app = typer.Typer(
    name="deviceops",
    help="Pictures from text, through a server that owns the devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    serve.serve,
    generate.generate,
    demo.demo,
    prompt.prompt,
    reproduce.reproduce,
    jobs.jobs,
    watch.watch,
    jobs.cancel,
    devices.devices,
    events.events,
    status.status,
    completion.completion,
):
    app.command()(command)
for name, group in (
    ("job", job.app),
    ("models", models.app),
    ("device", device.app),
    ("memory", memory.app),
    ("blobs", blobs.app),
    ("clock", clock.app),
    ("sessions", sessions.app),
):
    app.add_typer(group, name=name)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from server.version import SERVER_VERSION

        emit(f"deviceops {SERVER_VERSION}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pictures from text, through a server that owns the devices."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` default to those of the process. Returns the exit code and never raises."""
    # gRPC's own log repeats each error message in several lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if completion.ASKED in os.environ:
        completion.begin()
    return answered(lambda: app(args=None if arguments is None else list(arguments), prog_name="deviceops"))


def answered(command: Callable[[], object]) -> int:
    """Run a command and print what it raises in one line. Returns the exit code."""
    try:
        command()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except CliError as error:
        return _tell(error.message, error.exit_code)
    except DeviceOpsError as error:
        return _tell(f"{error.message} [{error.reason}]", USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except UnicodeEncodeError as error:
        return _tell(f"{error.object!r} is not UTF-8; give text in UTF-8", USAGE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename and error.errno not in _SHORTAGES else ""
        return _tell(f"{where}{error.strerror or error}{_SHORTAGES.get(error.errno or 0, '')}", 1)
    except RuntimeError as error:
        # What Python raises where the system refuses a thread.
        return _tell(NO_THREADS if str(error) == "can't start new thread" else _unforeseen(error), 1)
    except MemoryError:
        return _tell(_NO_MEMORY, 1)
    except SystemError as error:
        return _tell(_NO_MEMORY if str(error) == NO_FRAME else _unforeseen(error), 1)
    except Exception as error:
        return _tell(_unforeseen(error), 1)
    return 0


_NO_MEMORY = "the system gives this program no more memory; end others, or raise the limit (ulimit -v)"
_SHORTAGES = {
    errno.EMFILE: "; raise the limit of open files (ulimit -n)",
    errno.ENFILE: "; raise the limit of open files of the whole system (fs.file-max)",
    errno.ENOMEM: "; end other programs, or raise the limit (ulimit -v)",
    errno.EAGAIN: "; raise the limit of processes and threads (ulimit -u, TasksMax, pids.max)",
}
"""What helps where the system is short of something. The file that was to be opened is not at fault."""


def _unforeseen(error: Exception) -> str:
    if os.environ.get("DEVICEOPS_TRACEBACK"):
        return traceback.format_exc().rstrip()
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(last.filename)}:{last.lineno}"
    text = f"a fault of deviceops itself: {type(error).__name__}: {error} ({place})"
    return f"{text}\n  DEVICEOPS_TRACEBACK=1 shows where it comes from; please report it"


def _tell(message: str, exit_code: int) -> int:
    if message:
        notice(f"deviceops: {message}")
    return exit_code
