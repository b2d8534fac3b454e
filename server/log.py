"""Structured logs on stderr: one event a line, with the job id on every line that belongs to a job.

The worker processes write to the same stderr, in the same form: they inherit the choice through the environment.
"""

import logging
import os
import sys
from typing import Literal, cast

import structlog

Form = Literal["auto", "text", "json"]
_FORM, _LEVEL = "DEVICEOPS_LOG_FORMAT", "DEVICEOPS_LOG_LEVEL"


def hand_down(form: Form, level: str) -> None:
    """Processes that are started from now on write their logs likewise."""
    os.environ |= {_FORM: form, _LEVEL: level}


def configure_inherited() -> None:
    """Set up structlog as the process that started this one has handed it down."""
    configure(cast(Form, os.environ.get(_FORM, "auto")), os.environ.get(_LEVEL, "info"))


def configure(form: Form, level: str) -> None:
    """Set up structlog for this process; stdout stays free for those who read it."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if text else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if not text:
        # No locals: they hold prompts, and whole requests.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors.append(structlog.processors.ExceptionRenderer(frames))
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
