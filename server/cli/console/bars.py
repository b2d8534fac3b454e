"""Shows one live line for each job: title, bar, stage with its count, elapsed and remaining time."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from server.cli.console.printing import bytes_text, duration_s, notice, seconds_text

if TYPE_CHECKING:
    from rich.progress import Progress

    from deviceops.common.v1.job_event_pb2 import JobEvent, JobProgress


class JobLine(Protocol):
    """Shows one job's events."""

    def show(self, event: JobEvent) -> None:
        """Update the line; may be called from any thread."""


class Bars:
    """Lines on stderr: drawn by rich in a terminal, otherwise one plain line for each stage. A context manager."""

    def __init__(self, *, shown: bool = True) -> None:
        """`shown=False` draws nothing."""
        self._shown, self._live = shown, shown and sys.stderr.isatty()
        self._progress = _progress() if self._live else None

    def __enter__(self) -> Bars:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def line(self, title: str) -> JobLine:
        """Add a line for a job."""
        if self._progress:
            return _LiveLine(self._progress, title)
        return _PlainLine(title) if self._shown else _NoLine()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[stage]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remaining]}", markup=False),
        console=Console(stderr=True),
        refresh_per_second=10,
    )


class _LiveLine:
    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=1.0, stage="sent", remaining="")

    def show(self, event: JobEvent) -> None:
        kind = event.WhichOneof("kind")
        if kind == "progress":
            done = event.progress.completed_ratio if event.progress.HasField("completed_ratio") else None
            self._progress.update(
                self._task, completed=done, stage=count_text(event.progress), remaining=_remaining(event.progress)
            )
        elif kind == "succeeded":
            self._progress.update(self._task, completed=1.0, stage="done", remaining="")
            self._progress.stop_task(self._task)
        elif text := event_text(event):
            self._progress.update(self._task, stage=text, remaining="")
            if kind in ("partially_succeeded", "failed", "cancelled"):
                self._progress.stop_task(self._task)


class _PlainLine:
    def __init__(self, title: str) -> None:
        self._title = title

    def show(self, event: JobEvent) -> None:
        if text := event_text(event):
            notice(f"{self._title}: {text}")


class _NoLine:
    def show(self, event: JobEvent) -> None:
        return


def event_text(event: JobEvent) -> str:
    """A short text about an event; empty for progress, previews and heartbeats."""
    match event.WhichOneof("kind"):
        case "queued":
            place = event.queued.position if event.queued.HasField("position") else 0
            return f"queued behind {place}" if place else "queued"
        case "started":
            again = f", attempt {event.started.attempt}" if event.started.attempt > 1 else ""
            # A scan needs no device.
            place = f" on {event.started.device_id}" if event.started.device_id else ""
            return f"started{place}{again}"
        case "stage_started":
            return event.stage_started.stage
        case "degraded":
            return f"goes on with {event.degraded.kind.replace('_', ' ')}"
        case "resumed":
            return f"goes on from step {event.resumed.from_step}"
        case "interrupted":
            return "interrupted; goes on by itself"
        case "succeeded":
            return "done"
        case "partially_succeeded":
            return "done in part"
        case "pausing" | "paused" | "cancelling" | "failed" | "cancelled" as kind:
            return kind
        case _:
            return ""


def count_text(progress: JobProgress) -> str:
    """A stage with its count: `denoising 7/20 steps`, `loading 2.9 MiB of 24.9 MiB`."""
    if not progress.total:
        return progress.stage
    if progress.unit == "bytes":
        return f"{progress.stage} {bytes_text(progress.completed)} of {bytes_text(progress.total)}"
    return f"{progress.stage} {progress.completed}/{progress.total} {progress.unit}"


def _remaining(progress: JobProgress) -> str:
    return f"{seconds_text(duration_s(progress.remaining))} left" if progress.HasField("remaining") else ""
