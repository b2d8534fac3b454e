"""The two forms of a log line. Every event is one line without control characters, whatever texts it contains."""

import json
import math
import sys
import traceback
from collections.abc import Mapping
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_FRAMES = 30
"""Largest number of an exception's frames in a text line; the innermost are kept."""


def as_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    """The event as JSON in ASCII."""
    try:
        return json.dumps(event, default=_named, allow_nan=False)
    except (ValueError, TypeError):
        # NaN, or a key that is not a string.
        return json.dumps(_plain(event), default=_named)


def as_text(*, colors: bool) -> Processor:
    """The processor that renders an event for a terminal."""
    # No exceptions: `one_line_exception` has rendered them.
    render = structlog.dev.ConsoleRenderer(colors=colors)

    def line(logger: WrappedLogger, name: str, event: EventDict) -> str:
        shown = {key: escaped(value if isinstance(value, str) else repr(value)) for key, value in event.items()}
        return str(render(logger, name, shown))

    return line


def one_line_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by one text: the exception, then its frames from the innermost. No values of variables."""
    told: Any = event.pop("exc_info", None)
    told = sys.exc_info() if told is True else told
    error = told[1] if isinstance(told, tuple) else told
    if isinstance(error, BaseException):
        frames = reversed(traceback.extract_tb(error.__traceback__)[-_FRAMES:])
        places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        event["raised"] = f"{type(error).__name__}: {error} ({places})"
    return event


def escaped(text: str) -> str:
    """The text with every character that ends a line or moves a cursor escaped."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def is_event(line: bytes) -> bool:
    """Whether the line is a JSON object already."""
    if not line.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _named(value: object) -> str:
    """The text of a value that JSON cannot represent, without heap addresses."""
    text = str(value)
    return type(value).__name__ if " at 0x" in text else text


def _plain(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {str(key): _plain(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
        case list() | tuple():
            return [_plain(inner) for inner in cast("list[Any]", value)]
        case _:
            return value
