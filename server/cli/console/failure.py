"""Converts errors to text for users: sentences, never a traceback."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from server.cli.console.methods import in_commands

if TYPE_CHECKING:
    import grpc
    from google.rpc import error_details_pb2, status_pb2

    from deviceops.common.v1 import error_pb2

USAGE = 2
"""Exit code for a command that can never work as written."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells expect."""


class CliError(Exception):
    """Ends the command: `message` goes to stderr (it may have several lines), `exit_code` to the shell."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def must_be_text(**arguments: str) -> None:
    """Raise `CliError` (usage), which names the argument, for an argument that is not UTF-8."""
    for name, text in arguments.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            where = error.object[: error.start].encode(errors="replace")
            raise CliError(
                f"{name} is not UTF-8: the byte after the first {len(where)} cannot be read", USAGE
            ) from None


def explained(error: grpc.RpcError, address: str) -> CliError:
    """The error that ends the command for a refused or broken call. Exit code 2: no server could be reached."""
    import grpc

    unreached = isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE and not _details_of(error)
    return CliError(explain_refusal(error, address), USAGE if unreached else 1)


def explain_refusal(error: grpc.RpcError, address: str) -> str:
    """The text for a refused or broken call: message, violations on lines of their own, reason, when to retry."""
    import grpc

    # Every error of a client call is a `grpc.Call` too; the type of the base class does not tell.
    if not isinstance(error, grpc.Call):
        return f"the call to {address} failed: {error}"
    details = _details_of(error)
    if details is not None:
        return _explain_details(details)
    text = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return unreachable(address)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the server at {address} did not answer in time; it may be busy or hang: see `deviceops status`, and its log"
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {address} cannot do this: {text or 'it does not know the call'}"
    return f"{error.code().name}: {text}"


def unreachable(address: str) -> str:
    """The text for an address without a server: the fact, and what to do."""
    path = address.removeprefix("unix:")
    nothing = " (there is no such socket)" if path != address and not os.path.exists(path) else ""
    return (
        f"no DeviceOps server answers at {address}{nothing}: start one with `deviceops serve`, or name another with "
        "--address or DEVICEOPS_ADDRESS"
    )


def explain_failure(failure: error_pb2.Failure) -> str:
    """The text for a job's failure."""
    from deviceops.common.v1 import error_pb2

    reason = error_pb2.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
    lines = [f"{in_flags(failure.message)} [{reason}]"]
    lines += [f"  {violation.field}: {violation.message}" for violation in failure.violations]
    if failure.retryable:
        lines.append("  the same request may succeed later")
    return "\n".join(lines)


def one_line(failure: error_pb2.Failure) -> str:
    """A failure in one line, for lists: `the message [REASON]`."""
    return " ".join(explain_failure(failure).splitlines()[0].split())


def in_flags(text: str) -> str:
    """The text with fields of the request (`force`) replaced by flags of the running command (`--force`), and methods by
    the commands that call them."""
    flags = {name: flag for name, flag in _flags_at_work().items() if flag.startswith("--")}
    told = re.sub(r"`(\w+)`", lambda found: f"`{flags.get(found[1], found[1])}`", text)
    return in_commands(told.replace("set `--", "use `--"))


def _flags_at_work() -> dict[str, str]:
    """The running command's flags by parameter name."""
    try:
        # New versions of typer include a copy of click; older ones use the installed click.
        from typer._click.globals import get_current_context  # pyright: ignore[reportPrivateUsage]
    except ImportError:
        from click import get_current_context
    context = get_current_context(silent=True)
    return {one.name or "": max(one.opts, key=len) for one in context.command.params if one.opts} if context else {}


def _details_of(error: grpc.Call) -> status_pb2.Status | None:
    from grpc_status import rpc_status

    try:
        status = rpc_status.from_call(error)
    except ValueError:
        # The details contradict the status: a proxy rewrote one of them.
        return None
    return status if status is not None and status.details else None


def _explain_details(status: status_pb2.Status) -> str:
    from google.rpc import error_details_pb2

    info, request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for known in (info, request, retry):
            if detail.TypeName() == known.DESCRIPTOR.full_name:
                detail.Unpack(known)
    reason = f" [{info.reason}]" if info.reason else ""
    lines = [in_flags(_headline(status.message, request)) + reason]
    lines += [f"  {violation.field}: {violation.description}" for violation in request.field_violations]
    if retry.HasField("retry_delay"):
        lines.append(f"  try again in {retry.retry_delay.ToNanoseconds() / 1e9:g} s")
    return "\n".join(lines)


def _headline(message: str, request: error_details_pb2.BadRequest) -> str:
    # A message that only repeats the violations is left out.
    repeated = "; ".join(f"{violation.field}: {violation.description}" for violation in request.field_violations)
    return "the server refused the request" if request.field_violations and message == repeated else message
