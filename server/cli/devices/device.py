"""`deviceops device …`: check, enable, disable, drain and limit a device, and ask for advice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.failure import explain_failure
from server.cli.console.methods import in_commands
from server.cli.console.printing import duration_s, emit, measured, notice, print_json, quantity, seconds_text, word
from server.cli.console.tables import print_table
from server.cli.devices import work
from server.cli.devices.change import change, limits

if TYPE_CHECKING:
    from deviceops.device.v1.device_advice_pb2 import DeviceAdvice
    from deviceops.device.v1.device_health_pb2 import DeviceHealthCheck, DeviceHealthReport

app = typer.Typer(help="Check, switch, limit, measure or reset one device.", no_args_is_help=True)
app.command("benchmark")(work.benchmark)
app.command("reset")(work.reset)

DeviceArgument = work.DeviceArgument
CauseOption = Annotated[str, typer.Option(help="Why; kept with the event of the change.")]


@app.command()
def check(
    device: DeviceArgument,
    full: Annotated[bool, typer.Option("--full", help="Look hard: memory patterns and sustained load.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Try whether a device computes right. Ends with 1 if it is unhealthy."""
    from deviceops.device.v1 import device_health_pb2, device_service_pb2

    depth = device_health_pb2.DEVICE_HEALTH_DEPTH_FULL if full else device_health_pb2.DEVICE_HEALTH_DEPTH_QUICK
    with connect(address) as connection:
        name = ids.device(connection, device)
        request = device_service_pb2.CheckDeviceHealthRequest(device_id=name, depth=depth)
        answer = connection.device.CheckDeviceHealth(request)
    print_json(answer) if json else _tell_health(answer.report)
    if answer.report.verdict == device_health_pb2.DEVICE_HEALTH_VERDICT_UNHEALTHY:
        raise typer.Exit(1)


@app.command()
def enable(device: DeviceArgument, cause: CauseOption = "", address: AddressOption = None, json: JsonOption = False):
    """Let a device take work, after `disable` or `drain`."""
    change(address, device, {"enabled": True, "draining": False}, cause, json=json)


@app.command()
def disable(device: DeviceArgument, cause: CauseOption = "", address: AddressOption = None, json: JsonOption = False):
    """Switch a device off; what runs there may end."""
    change(address, device, {"enabled": False}, cause, json=json)


@app.command()
def drain(device: DeviceArgument, cause: CauseOption = "", address: AddressOption = None, json: JsonOption = False):
    """Let a device finish what runs and take no new work."""
    change(address, device, {"draining": True}, cause, json=json)


@app.command()
def limit(
    device: DeviceArgument,
    power: Annotated[str | None, typer.Option(metavar="W", help="The most power; `default`: the driver's.")] = None,
    jobs: Annotated[str | None, typer.Option(metavar="N", help="Jobs at once; `default`: 1.")] = None,
    temperature: Annotated[
        str | None, typer.Option(metavar="C", help="Degraded above this; `default`: the driver's own limit alone.")
    ] = None,
    cause: CauseOption = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Set ceilings of a device. They hold until the server stops."""
    change(address, device, limits(power=power, jobs=jobs, temperature=temperature), cause, json=json)


@app.command()
def advise(
    device: DeviceArgument,
    goal: Annotated[
        Literal["balanced", "latency", "throughput", "memory", "power"], typer.Option(help="What to favour.")
    ] = "balanced",
    task: Annotated[str, typer.Option(help="For this task, as `text_to_image`.")] = "",
    model: Annotated[str, typer.Option(help="For this model.")] = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Settings that would serve a goal. Changes nothing."""
    from deviceops.device.v1 import device_pb2, device_service_pb2

    request = device_service_pb2.RecommendDeviceSettingsRequest(
        goal=device_pb2.DeviceGoal.Value(f"DEVICE_GOAL_{goal.upper()}"), task=task
    )
    with connect(address) as connection:
        request.device_id = ids.device(connection, device)
        request.model_id = model and ids.model(connection, model)
        answer = connection.device.RecommendDeviceSettings(request)
    return print_json(answer) if json else _tell_advice(answer.advice)


def _tell_health(report: DeviceHealthReport) -> None:
    from deviceops.device.v1 import device_health_pb2

    verdict = word(device_health_pb2.DeviceHealthVerdict.Name(report.verdict), "DEVICE_HEALTH_VERDICT_")
    waited, took = (seconds_text(duration_s(span)) for span in (report.queue_time, report.duration))
    emit(f"{report.device_id} is {verdict} (waited {waited}, took {took})", end="\n\n")
    print_table(("check", "verdict", "took", "found"), map(_check_row, report.checks), "No checks.")
    for recommendation in report.recommendations:
        notice(f"→ {in_commands(recommendation)}")


def _check_row(check: DeviceHealthCheck) -> tuple[str, ...]:
    from deviceops.device.v1 import device_health_pb2

    verdict = word(device_health_pb2.DeviceHealthVerdict.Name(check.verdict), "DEVICE_HEALTH_VERDICT_")
    found = explain_failure(check.failure) if check.HasField("failure") else check.message
    took = seconds_text(duration_s(check.duration)) if check.HasField("duration") else "–"
    return check.name, verdict, took, found


def _tell_advice(advice: DeviceAdvice) -> None:
    from deviceops.device.v1 import device_pb2

    def text(field: str) -> str:
        if field == "goal":
            return word(device_pb2.DeviceGoal.Name(advice.settings.goal), "DEVICE_GOAL_")
        # Only a field with presence can be absent.
        optional = advice.settings.DESCRIPTOR.fields_by_name[field].has_presence
        value = measured(advice.settings, field) if optional else getattr(advice.settings, field)
        return "default" if value is None else str(value)

    emit(advice.rationale, end="\n\n")
    rows = [("setting", field, text(field), "") for field in advice.changed_fields]
    rows += [("option", one.option, "use" if one.use else "leave out", one.reason) for one in advice.options]
    rows += [("effect", one.name, quantity(one.value, one.unit), "") for one in advice.expected_effects]
    print_table(("kind", "what", "advice", "why"), rows, "All is well as it is.")
