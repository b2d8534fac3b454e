"""Limits, intervals and counts of devices: each was chosen, and another one is another choice.

Limits that refuse something have tests of their own, at and beyond the limit.
"""

from types import ModuleType
from typing import Annotated

import msgspec
import pytest

from domains.device import (
    advice,
    cpu_telemetry,
    driver_thread,
    feed,
    history,
    record,
    settings,
    sharing,
    threaded_inventory,
    workload,
)
from domains.device.directml import adapter, dxcore
from domains.device.simulated import faults, script, script_file, telemetry, watch

CHOSEN: list[tuple[ModuleType, dict[str, object]]] = [
    (advice, {"TIGHT_SHARE": 0.25}),
    (cpu_telemetry, {"_SHORTEST_S": 0.08, "_APART_S": 0.01, "_KEPT": 16}),
    (driver_thread, {"ANSWER_S": 2.0}),
    (feed, {"SHORTEST_S": 0.1, "LONGEST_S": 60.0, "_SAME_S": 1e-6}),
    (history, {"STEP_S": 2, "_RINGS": ((2, 1830), (60, 1450))}),
    (record, {"DEGRADE_AFTER": 2, "QUARANTINE_AFTER": 4, "ERROR_WINDOW_S": 600.0}),
    (record, {"DEGRADE_WITHIN": 4, "QUARANTINE_WITHIN": 8}),
    (settings, {"MAX_TEMPERATURE_CELSIUS": (40.0, 110.0)}),
    (sharing, {"MOST_JOBS": 64, "_JOBS_ON_CPU": 2, "_JOBS": 8}),
    (threaded_inventory, {"FIRST_LOOK_S": 10.0}),
    (workload, {"WINDOW_S": 60.0, "_ENOUGH": 3, "_REMEMBERED": 32}),
    (
        adapter,
        {
            "_VENDORS": {
                0x10DE: "NVIDIA",
                0x1002: "AMD",
                0x1022: "AMD",
                0x8086: "Intel",
                0x5143: "Qualcomm",
                0x1414: "Microsoft",
            }
        },
    ),
    (dxcore, {"_SYSTEM_FOLDER_ONLY": 0x800, "_HIGH_PERFORMANCE": 2}),
    (script, {"MAX_DEVICES": 64, "MAX_FAULTS": 64}),
    (
        script,
        {
            "_Bytes": Annotated[int, msgspec.Meta(ge=0, le=2**50)],
            "_Celsius": Annotated[float, msgspec.Meta(ge=-50, le=200)],
            "_Watts": Annotated[float, msgspec.Meta(ge=0, le=10_000)],
            "_Name": Annotated[str, msgspec.Meta(min_length=1, max_length=128)],
            "_Speed": Annotated[float, msgspec.Meta(ge=0.0001, le=1)],
            "_Seconds": Annotated[float, msgspec.Meta(ge=0, le=86_400)],
        },
    ),
    (
        faults,
        {
            "_Step": Annotated[int, msgspec.Meta(ge=0, le=1000)],
            "_DenoisingStep": Annotated[int, msgspec.Meta(ge=1, le=1000)],
            "_Times": Annotated[int, msgspec.Meta(ge=0, le=1_000_000)],
            "_Bytes": Annotated[int, msgspec.Meta(ge=1, le=2**50)],
        },
    ),
    (script_file, {"MAX_FILE_BYTES": 256 * 1024}),
    (telemetry, {"POWER_SETTLES_S": 0.5}),
    (watch, {"LOOK_EVERY_S": 0.25}),
]


@pytest.mark.parametrize(
    ("module", "figures"), CHOSEN, ids=[f"{module.__name__} {min(names)}" for module, names in CHOSEN]
)
def test_a_figure_is_the_one_that_was_chosen(module: ModuleType, figures: dict[str, object]) -> None:
    assert {name: getattr(module, name) for name in figures} == figures
