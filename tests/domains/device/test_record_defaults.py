"""The defaults of the records of devices.

`python -m tests.domains.device.test_record_defaults` writes `record_defaults.txt` anew.
"""

from pathlib import Path

from domains.device import (
    adapter,
    advice,
    device,
    effects,
    health,
    history,
    nvml_inventory,
    record,
    refresh,
    sample,
    settings,
    status,
)
from domains.device.directml import adapter as directml_adapter
from domains.device.simulated import faults, script, watch
from tests.domains.record_defaults import defaults_of

FILE = Path(__file__).with_name("record_defaults.txt")
RECORDS = (
    adapter,
    advice,
    device,
    effects,
    health,
    history,
    nvml_inventory,
    record,
    refresh,
    sample,
    settings,
    status,
    directml_adapter,
    faults,
    script,
    watch,
)


def test_a_record_that_does_not_say_a_field_means_what_it_always_meant() -> None:
    meant = "meant? then run python -m tests.domains.device.test_record_defaults"
    assert defaults_of(RECORDS) == FILE.read_text("utf-8"), meant


if __name__ == "__main__":
    FILE.write_text(defaults_of(RECORDS), encoding="utf-8")
