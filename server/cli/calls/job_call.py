"""Calls that submit a job and follow it to its end: scans, loads, benchmarks, resets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import typer

from server.cli.calls.connection import Connection
from server.cli.console.bars import Bars
from server.cli.console.failure import INTERRUPTED, CliError, explain_refusal
from server.cli.console.printing import notice, print_json, word
from server.cli.generation.run import check_ended_well

if TYPE_CHECKING:
    from deviceops.device.v1.device_service_pb2 import BenchmarkDeviceResponse, ResetDeviceResponse
    from deviceops.model.v1.model_service_pb2 import (
        BenchmarkModelResponse,
        ConvertModelResponse,
        LoadModelResponse,
        ScanModelsResponse,
        ValidateModelResponse,
    )

Step = TypeVar(
    "Step",
    "BenchmarkDeviceResponse",
    "BenchmarkModelResponse",
    "ConvertModelResponse",
    "ResetDeviceResponse",
    "LoadModelResponse",
    "ScanModelsResponse",
    "ValidateModelResponse",
)
_CANCEL_S = 10.0


def last_of(connection: Connection, messages: Iterable[Step], title: str, *, json: bool) -> Step:
    """The job's last message, which carries its report. Raises `CliError` unless the job succeeded.

    Ctrl-C cancels the job and prints its state.
    """
    last: Step | None = None
    try:
        with Bars() as bars:
            line = bars.line(title)
            for last in messages:
                line.show(last.event)
                if json:
                    print_json(last, one_line=True)
                check_ended_well(last.event)
    except KeyboardInterrupt:
        notice(f"{title}: {_cancelled(connection, last.event.job_id if last else '')}")
        raise typer.Exit(INTERRUPTED) from None
    if last is None or last.event.WhichOneof("kind") != "succeeded":
        job = f": deviceops watch {last.event.job_id}" if last is not None else ""
        raise CliError(f"the server ended the call before the job had an end{job}")
    return last


def _cancelled(connection: Connection, job_id: str) -> str:
    """The text about the state of a job after the request to cancel it."""
    import grpc

    from deviceops.common.v1 import job_event_pb2
    from deviceops.processing.v1 import processing_service_pb2 as pb

    if not job_id:
        return "cancelled before it was taken"
    try:
        answer = connection.processing.CancelJob(pb.CancelJobRequest(job_id=job_id, cause="Ctrl-C"), timeout=_CANCEL_S)
    except grpc.RpcError as error:
        return f"it cannot be stopped any more ({explain_refusal(error, connection.address)}): deviceops watch {job_id}"
    state = word(job_event_pb2.JobState.Name(answer.job.state), "JOB_STATE_")
    return f"job {job_id} is {state}; what is begun comes to a safe end: deviceops watch {job_id}"
