"""`deviceops status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.printing import bytes_text, duration_s, emit, print_json, seconds_text, word
from server.cli.console.tables import print_table

if TYPE_CHECKING:
    from deviceops.processing.v1.system_status_pb2 import DomainReadiness, SystemStatus, WorkerStatus


def status(address: AddressOption = None, json: JsonOption = False) -> None:
    """Tell how ready the server is, what each part waits for, and how its workers are."""
    from deviceops.processing.v1 import processing_service_pb2

    with connect(address) as connection:
        answer = connection.processing.GetSystemStatus(processing_service_pb2.GetSystemStatusRequest())
    if json:
        return print_json(answer)
    emit(_headline(answer.status), end="\n\n")
    print_table(("part", "readiness", "waits for", "now", "took"), map(_part, answer.status.domains), "No parts.")
    emit()
    heads = ("worker of", "state", "process", "memory", "restarts", "libraries")
    return print_table(heads, map(_worker, answer.status.workers), "No workers.")


def _headline(system: SystemStatus) -> str:
    from deviceops.processing.v1 import system_status_pb2

    mode = word(system_status_pb2.SystemMode.Name(system.mode), "SYSTEM_MODE_")
    reason = f" ({system.mode_reason})" if system.mode_reason else ""
    lines = [
        f"deviceops {system.server_version}, up {seconds_text(duration_s(system.uptime))}, mode {mode}{reason}",
        f"listens on {', '.join(system.listen_addresses)}",
    ]
    if system.HasField("serving_after"):
        lines.append(f"served {seconds_text(duration_s(system.serving_after))} after its start")
    if system.HasField("ready_after"):
        lines[-1] += f", ready {seconds_text(duration_s(system.ready_after))} after its start"
    return "\n".join(lines)


def _part(part: DomainReadiness) -> tuple[str, ...]:
    from deviceops.common.v1 import domain_pb2
    from deviceops.processing.v1 import system_status_pb2

    def name(domain: domain_pb2.Domain.ValueType) -> str:
        return word(domain_pb2.Domain.Name(domain), "DOMAIN_")

    return (
        name(part.domain),
        word(system_status_pb2.Readiness.Name(part.readiness), "READINESS_"),
        ", ".join(map(name, part.waits_for)),
        part.detail,
        seconds_text(duration_s(part.init_duration)) if part.HasField("init_duration") else "",
    )


def _worker(worker: WorkerStatus) -> tuple[str, ...]:
    from deviceops.processing.v1 import system_status_pb2

    return (
        worker.device_id,
        word(system_status_pb2.WorkerState.Name(worker.state), "WORKER_STATE_"),
        str(worker.process_id) if worker.HasField("process_id") else "–",
        bytes_text(worker.resident_bytes if worker.HasField("resident_bytes") else None),
        str(worker.restart_count),
        ", ".join(worker.libraries),
    )
