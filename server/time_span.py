"""The time span of a history query."""

import time
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from domains.errors import InvalidRequest, Violation
from server import convert


def time_span(request: Any, *, finest_s: float) -> tuple[float | None, float, float | None]:
    """Start, end and step of a query in seconds. Raises INVALID_FIELD with all violations."""
    now = time.time()
    end = min(now, _unix(request.end_time, "end_time")) if request.HasField("end_time") else now
    start = _unix(request.start_time, "start_time") if request.HasField("start_time") else None
    step = convert.from_duration(request.step) if request.HasField("step") else None
    wrong: list[Violation] = []
    if start is not None and start > end:
        wrong.append(Violation(field="end_time", message="is before the start", allowed="from start_time to now"))
    if step is not None and step < finest_s:
        text = f"{step:g} s is less than {finest_s:g} s"
        wrong.append(Violation(field="step", message=text, allowed=f"{finest_s:g} s.."))
    if wrong:
        raise InvalidRequest(wrong)
    return start, end, step


def _unix(stamp: Timestamp, path: str) -> float:
    return convert.from_time(stamp, path) / 1e9
