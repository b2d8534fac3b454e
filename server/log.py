"""Structured logs on stderr: one event a line, with the job's id on every line that belongs to a job.

A log call never waits and never raises, see `log_writer`. Worker processes write to the server's stderr in the same form,
which they inherit through the environment. Output of other code becomes lines of the log too, see `log_capture`.
"""

import atexit
import faulthandler
import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, cast

import structlog

from server import log_capture
from server.log_form import as_json, as_text, is_event, one_line_exception
from server.log_writer import LogWriter

Form = Literal["auto", "text", "json"]
_FORM, _LEVEL = "DEVICEOPS_LOG_FORMAT", "DEVICEOPS_LOG_LEVEL"
_STDERR = 2
_FLUSH_S = 1.0
"""Seconds that the end of a process waits for a slow stderr."""


class _Output:
    """The destination and the form of this process's lines."""

    def __init__(self) -> None:
        self.render: structlog.typing.Processor = as_json
        self.writer = LogWriter(_STDERR, self.dropped)

    def open(self, fd: int | None, render: structlog.typing.Processor) -> None:
        """Write all further lines to `fd`, in this form."""
        self.render = render
        self.writer = LogWriter(fd, self.dropped)

    def line(self, level: str, event: str, **facts: object) -> bytes:
        """A rendered line about the log itself, without structlog's processors."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        rendered = self.render(None, level, {**facts, "event": event, "level": level, "timestamp": now})
        return str(rendered).encode("utf-8", "backslashreplace")

    def dropped(self, lines: int) -> bytes:
        """The line that reports the number of dropped lines."""
        return self.line("warning", "log lines were dropped: stderr was slow, full or gone", dropped=lines)

    def take(self, line: bytes) -> None:
        """Log a line that other code or another process has written."""
        if not line.strip():
            return
        if self.render is as_json and not is_event(line):
            line = self.line("info", line.decode("utf-8", "backslashreplace"), logger="stderr")
        self.writer.put(line)


_output = _Output()


class _Lines:
    """structlog's logger, which receives rendered lines."""

    def msg(self, line: str) -> None:
        """Pass the line to the present writer."""
        _output.writer.put(line.encode("utf-8", "backslashreplace"))

    log = debug = info = warning = warn = error = critical = exception = fatal = msg


class _FromLogging(logging.Handler):
    """Converts records of Python's logging, which asyncio, grpcio and others use, to lines of this log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        level = next(one for one in (50, 40, 30, 20, 10, 0) if record.levelno >= one) or logging.DEBUG
        try:
            text = record.getMessage()
        except Exception:
            text = str(record.msg)
        structlog.get_logger().log(level, text, logger=record.name, exc_info=record.exc_info)


def hand_down(form: Form, level: str) -> None:
    """Set form and level for all processes that are started from now on."""
    os.environ |= {_FORM: form, _LEVEL: level}


def configure_inherited() -> None:
    """Set up structlog with the form and the level of the parent process."""
    configure(cast(Form, os.environ.get(_FORM, "auto")), os.environ.get(_LEVEL, "info"))


@contextmanager
def writing(form: Form, level: str) -> Generator[None]:
    """Set up the log of a server and of its child processes while the block runs."""
    ours = log_capture.own_standard_descriptors()
    stderr = os.dup(_STDERR) if ours else None
    form = configure(form, level, stderr)
    hand_down(form, level)
    try:
        if stderr is None or sys.platform == "win32":
            yield
        else:
            # A crash is written directly: it also ends the thread that writes the log.
            faulthandler.enable(stderr)
            with log_capture.captured(stderr, _output.take):
                yield
    finally:
        faulthandler.disable()
        _output.writer.flush(_FLUSH_S)


def configure(form: Form, level: str, fd: int | None = _STDERR) -> Literal["text", "json"]:
    """Set up structlog for this process on stderr. Returns the form, with "auto" resolved."""
    tty = fd is not None and os.isatty(fd)
    text = form == "text" or (form == "auto" and tty)
    _output.open(fd, as_text(colors=tty) if text else as_json)
    # No locals: they contain prompts and requests.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        one_line_exception if text else structlog.processors.ExceptionRenderer(frames),
        _output.render,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=_never_raising(structlog.make_filtering_bound_logger(getattr(logging, level.upper()))),
        logger_factory=lambda *_: _Lines(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLogging()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    atexit.unregister(_flush)
    atexit.register(_flush)
    return "text" if text else "json"


def _flush() -> None:
    _output.writer.flush(_FLUSH_S)


def _never_raising(base: type[Any]) -> type[Any]:
    """A bound logger whose calls never raise. If an event cannot be rendered, only its name is logged."""

    def _proxy_to_logger(self: Any, method: str, event: str | None = None, /, *args: Any, **facts: Any) -> Any:
        try:
            return base._proxy_to_logger(self, method, event, *args, **facts)
        except Exception as error:
            fault = type(error).__name__
            _output.writer.put(_output.line(method, str(event), log_fault=fault))
            return None

    return type("NeverRaising", (base,), {"_proxy_to_logger": _proxy_to_logger})
