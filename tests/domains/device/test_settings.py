"""Settings of a device."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.device.settings import DeviceGoal, DeviceSettings, changed
from domains.errors import InvalidRequest, NotSupported

ALL = DeviceSettings.__struct_fields__
NEW = DeviceSettings(
    enabled=False,
    draining=True,
    goal=DeviceGoal.MEMORY,
    power_limit_watts=300.0,
    max_concurrent_jobs=2,
    max_temperature_celsius=80.0,
)


def change(new: DeviceSettings, *mask: str, old: DeviceSettings | None = None, **limits: Any) -> DeviceSettings:
    usual: dict[str, Any] = {"controls": ALL, "power_range": (200.0, 700.0), "capacity": 4}
    return changed(old or DeviceSettings(), new, mask, **usual | limits)


@given(st.sets(st.sampled_from(ALL), min_size=1))
def test_only_what_the_mask_names_changes(mask: set[str]) -> None:
    after = change(NEW, *mask)
    for name in ALL:
        assert getattr(after, name) == getattr(NEW if name in mask else DeviceSettings(), name)


def test_an_optional_setting_named_and_absent_goes_back_to_its_default() -> None:
    after = change(DeviceSettings(), "power_limit_watts", "max_temperature_celsius", old=NEW)
    assert after == msgspec.structs.replace(NEW, power_limit_watts=None, max_temperature_celsius=None)


@pytest.mark.parametrize("mask", [(), ("*",), ("speed",), ("enabled", "settings.goal")])
def test_a_mask_that_names_no_setting_is_refused(mask: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        change(NEW, *mask)
    assert [one.field for one in refused.value.violations] == ["update_mask"]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("power_limit_watts", 199.0, "200..700"),
        ("power_limit_watts", math.nan, "200..700"),
        ("max_concurrent_jobs", 0, "1..4"),
        ("max_concurrent_jobs", 5, "1..4"),
        ("max_temperature_celsius", 111.0, "40..110"),
    ],
)
def test_a_value_outside_its_range_is_named_with_the_range(name: str, value: float, allowed: str) -> None:
    new = msgspec.structs.replace(NEW, **{name: value})
    with pytest.raises(InvalidRequest) as refused:
        change(new, name)
    assert [(one.field, one.allowed) for one in refused.value.violations] == [(f"settings.{name}", allowed)]
    assert change(new, "enabled").enabled is False  # what is not named does not count


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("power_limit_watts", 200.0),
        ("power_limit_watts", 700.0),
        ("max_concurrent_jobs", 1),
        ("max_concurrent_jobs", 4),
        ("max_temperature_celsius", 40.0),
        ("max_temperature_celsius", 110.0),
    ],
)
def test_a_value_at_the_end_of_its_range_is_taken(name: str, value: float) -> None:
    assert getattr(change(msgspec.structs.replace(NEW, **{name: value}), name), name) == value


def test_all_violations_come_at_once() -> None:
    new = msgspec.structs.replace(NEW, max_concurrent_jobs=9, max_temperature_celsius=0.0)
    with pytest.raises(InvalidRequest) as refused:
        change(new, "max_concurrent_jobs", "max_temperature_celsius", "*")
    assert len(refused.value.violations) == 3


def test_what_cannot_be_changed_here_is_named_with_what_can() -> None:
    with pytest.raises(NotSupported) as refused:
        change(NEW, "enabled", "power_limit_watts", controls=("enabled", "goal"))
    assert refused.value.facts == {"settings": "power_limit_watts", "controls": "enabled, goal"}


def test_without_a_known_power_range_the_driver_judges() -> None:
    assert change(NEW, "power_limit_watts", power_range=None).power_limit_watts == 300.0
