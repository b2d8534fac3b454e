"""What a script of simulated devices may say, and how often its faults strike."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.device.device import Backend, Device, DeviceKind
from domains.device.simulated.describe import describe
from domains.device.simulated.fault_counts import FaultCounts, SimSetup
from domains.device.simulated.faults import (
    Crash,
    DriverError,
    Fault,
    HungStep,
    Leak,
    NotFinite,
    OutOfMemory,
    SlowLoad,
    WrongResult,
)
from domains.device.simulated.script import MAX_FAULTS, Power, SimDevice, SimScript, Temperature, default_script
from domains.device.simulated.script_file import MAX_FILE_BYTES, parse_script, read_script
from domains.errors import ErrorReason, InvalidRequest


def sample() -> bytes:
    return files("domains.device.simulated").joinpath("every_fault.toml").read_bytes()


def refusal(text: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        parse_script(text.encode(), "sims.toml")
    assert refused.value.reason is ErrorReason.INVALID_FIELD
    return refused.value


def one(entry: str) -> str:
    return f'[[device]]\nid = "sim-0"\n{entry}\n'


def test_the_sample_script_has_every_fault() -> None:
    script = parse_script(sample(), "every_fault.toml")
    kinds = {type(fault) for device in script.devices for fault in device.faults}
    assert kinds == set(get_args(Fault))


def test_the_sample_script_spells_out_the_defaults() -> None:
    first = parse_script(sample(), "every_fault.toml").devices[0]
    assert first == SimDevice(id="sim-0")


def test_a_fault_strikes_the_first_step_once_unless_the_script_says_otherwise() -> None:
    for kind in (OutOfMemory, HungStep, DriverError, Crash, NotFinite):
        assert (kind().at_step, kind().times) == (1, 1)
    assert OutOfMemory().stage == "denoising"
    assert WrongResult().times == 0, "without end"


@pytest.mark.parametrize(
    ("kind", "key", "least", "most"),
    [
        *((kind, "at_step", 0, 1000) for kind in ("out_of_memory", "hung_step", "driver_error", "crash")),
        ("not_finite", "at_step", 1, 1000),
        ("wrong_result", "times", 0, 1_000_000),
        ("slow_load", "bytes_per_second", 1, 2**50),
        ("leak", "bytes_per_job", 1, 2**50),
    ],
)
def test_numbers_of_a_fault_are_taken_up_to_their_limits(kind: str, key: str, least: int, most: int) -> None:
    for good in (least, most):
        parse_script(one(f'[[device.fault]]\nkind = "{kind}"\n{key} = {good}').encode(), "sims.toml")
    for bad in (least - 1, most + 1):
        refusal(one(f'[[device.fault]]\nkind = "{kind}"\n{key} = {bad}'))


def test_devices_without_a_script_are_healthy_and_numbered() -> None:
    script = default_script(3)
    assert [device.id for device in script.devices] == ["sim-0", "sim-1", "sim-2"]
    assert script.present == script.devices
    assert not any(device.faults for device in script.devices)


@pytest.mark.parametrize("count", [1, 64])
def test_one_simulated_device_is_made_and_sixty_four_are(count: int) -> None:
    assert len(default_script(count).devices) == count


@pytest.mark.parametrize("count", [0, -1, 65, 2**70])
def test_a_number_of_devices_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(InvalidRequest, match=r"1\.\.64"):
        default_script(count)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "device"),
        ("device = 3", "device"),
        ("device = [3]", "device[0]"),
        ("[[devices]]\nid = 'sim-0'\n[[device]]\nid = 'sim-0'", "devices"),
        ("[[device]]\nname = 'no id'", "device[0]"),
        ("[[device]]\nid = 'sim-00'", "device[0].id"),
        ('[[device]]\nid = "sim-0\\n"', "device[0].id"),
        ("[[device]]\nid = 'gpu-0'", "device[0].id"),
        ("[[device]]\nid = 'sim-0'\n[[device]]\nid = 'sim-0'", "device.id"),
        (one("memory = 3"), "device[0]"),
        (one("memory_bytes = -1"), "device[0].memory_bytes"),
        (one("memory_bytes = 99999999999999999999999"), "device[0].memory_bytes"),
        (one("memory_bytes = 1\nruntime_bytes = 2"), "device[0].runtime_bytes"),
        (one("memory_bytes = '8 GiB'"), "device[0].memory_bytes"),
        (one("speed = 0"), "device[0].speed"),
        (one("speed = 1.5"), "device[0].speed"),
        (one("present = 1"), "device[0].present"),
        (one("name = ''"), "device[0].name"),
        (one("faults = []"), "device[0].faults"),
        (one("fault = {}"), "device[0].fault"),
        (one("[device.temperature]\nidle_celsius = 90.0"), "device[0].temperature.loaded_celsius"),
        (one("[device.temperature]\nidle = 90.0"), "device[0].temperature"),
        (one("[device.power]\nloaded_watts = 1.0"), "device[0].power.loaded_watts"),
        (one("[device.power]\nleast_limit_watts = 999.0"), "device[0].power.least_limit_watts"),
        (one("[[device.fault]]\nkind = 'meteor'"), "device[0].fault[0].kind"),
        (one("[[device.fault]]\nat_step = 1"), "device[0].fault[0]"),
        (one("[[device.fault]]\nkind = 'crash'\nat_step = 1001"), "device[0].fault[0].at_step"),
        (one("[[device.fault]]\nkind = 'crash'\ntimes = -1"), "device[0].fault[0].times"),
        (one("[[device.fault]]\nkind = 'not_finite'\nat_step = 0"), "device[0].fault[0].at_step"),
        (one("[[device.fault]]\nkind = 'leak'\nbytes_per_job = 0"), "device[0].fault[0].bytes_per_job"),
        (one("[[device.fault]]\nkind = 'leak'\nbytes = 1"), "device[0].fault[0]"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_key(text: str, key: str) -> None:
    error = refusal(text)
    assert [violation.field for violation in error.violations] == [f"sims.toml: {key}"]
    assert error.facts["file"] == "sims.toml"


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    assert "finite" in refusal(one(f"speed = {number}")).message


def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = one("speed = 7\n[[device.fault]]\nkind = 'x'") + "[[device]]\nid = 'y'"
    fields = [violation.field for violation in refusal(text).violations]
    assert fields == [f"sims.toml: {key}" for key in ("device[0].fault[0].kind", "device[0].speed", "device[1].id")]


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.toml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 100))
    with pytest.raises(InvalidRequest, match=r"long\.toml: is too long"):
        read_script(path)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path, text = tmp_path / "long.toml", one("").encode()
    path.write_bytes(text + b"#" * (MAX_FILE_BYTES - len(text)))
    assert read_script(path).devices == (SimDevice(id="sim-0"),)


@pytest.mark.parametrize(
    "entry",
    [
        "memory_bytes = 5\nruntime_bytes = 5",
        "[device.temperature]\nidle_celsius = 50.0\nloaded_celsius = 50.0",
        "[device.power]\nidle_watts = 90.0\nloaded_watts = 90.0",
        "[device.power]\nidle_watts = 100.0\nleast_limit_watts = 100.0\nmost_limit_watts = 100.0",
        '[[device.fault]]\nkind = "crash"\n' * MAX_FAULTS,
    ],
)
def test_two_numbers_of_which_one_bounds_the_other_may_be_equal(entry: str) -> None:
    parse_script(one(entry).encode(), "sims.toml")


def test_a_fault_more_than_the_limit_is_refused() -> None:
    (violation,) = refusal(one('[[device.fault]]\nkind = "crash"\n' * (MAX_FAULTS + 1))).violations
    assert (violation.field, "64" in violation.message) == ("sims.toml: device[0].fault", True)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.toml: cannot be read"):
        read_script(tmp_path / "none.toml")


@pytest.mark.parametrize("text", [b"\xff", b"device = ", b"x = " + b"[" * 5000, b"x = " + b"9" * 5000])
def test_what_is_not_toml_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="is not TOML"):
        parse_script(text, "sims.toml")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_script_or_a_refusal(data: bytes) -> None:
    violations = ()
    script = None
    try:
        script = parse_script(data, "sims.toml")
    except InvalidRequest as error:
        violations = error.violations
    assert (script is None) == bool(violations)


_COUNTS = st.integers(0, 1000)
_FAULTS = st.one_of(
    st.builds(OutOfMemory, at_step=_COUNTS, times=_COUNTS),
    st.builds(HungStep, at_step=_COUNTS, times=_COUNTS),
    st.builds(Crash, at_step=_COUNTS, times=_COUNTS),
    st.builds(SlowLoad, bytes_per_second=st.integers(1, 2**50)),
    st.builds(Leak, bytes_per_job=st.integers(1, 2**50)),
)
_WATTS = st.lists(st.floats(0, 10_000), min_size=4, max_size=4).map(sorted)
_DEVICES = st.builds(
    SimDevice,
    id=st.integers(0, 9999).map("sim-{}".format),
    name=st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=128),
    present=st.booleans(),
    memory_bytes=st.integers(2**20, 2**50),
    runtime_bytes=st.integers(0, 2**20),
    speed=st.floats(0.0001, 1),
    temperature=st.tuples(st.floats(-50, 0), st.floats(1, 200), st.floats(0, 1000)).map(
        lambda t: Temperature(idle_celsius=t[0], loaded_celsius=t[1], heating_s=t[2])
    ),
    power=_WATTS.map(
        lambda w: Power(idle_watts=w[0], least_limit_watts=w[1], loaded_watts=w[2], most_limit_watts=w[3])
    ),
    faults=st.lists(_FAULTS, max_size=5).map(tuple),
)


@given(st.lists(_DEVICES, min_size=1, max_size=4, unique_by=lambda device: device.id))
def test_a_script_that_is_written_is_read_as_it_was(devices: list[SimDevice]) -> None:
    text = "".join(_toml(device) for device in devices)
    assert parse_script(text.encode(), "sims.toml") == SimScript(devices=tuple(devices))


def _toml(device: SimDevice) -> str:
    table: Mapping[str, Any] = msgspec.to_builtins(device)
    plain = {key: value for key, value in table.items() if key not in ("temperature", "power", "faults")}
    lines = ["[[device]]", *_lines(plain)]
    for name in ("temperature", "power"):
        lines += [f"[device.{name}]", *_lines(table[name])]
    for fault in table["faults"]:
        lines += ["[[device.fault]]", *_lines(fault)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    # JSON's strings and booleans are TOML's too, but for DEL.
    return [f"{key} = {msgspec.json.encode(value).decode()}".replace("\x7f", "\\u007f") for key, value in table.items()]


def test_a_fault_that_has_struck_is_not_armed_again() -> None:
    counts = FaultCounts()
    device = SimDevice(id="sim-0", faults=(Crash(at_step=2, times=2), OutOfMemory(times=0), Leak(bytes_per_job=5)))
    assert [(one.index, one.strikes_left) for one in counts.setup(device).armed] == [(0, 2), (1, None), (2, None)]
    counts.count_strike(device, 0)
    counts.count_strike(device, 1)
    assert [(one.index, one.strikes_left) for one in counts.setup(device).armed] == [(0, 1), (1, None), (2, None)]
    counts.count_strike(device, 0)
    assert [one.index for one in counts.setup(device).armed] == [1, 2]


def test_a_fault_that_is_changed_in_the_script_counts_from_zero() -> None:
    counts = FaultCounts()
    before = SimDevice(id="sim-0", faults=(Crash(at_step=2, times=1),))
    counts.count_strike(before, 0)
    renamed = msgspec.structs.replace(before, name="other")
    assert counts.setup(renamed).armed == ()
    later = SimDevice(id="sim-0", faults=(Crash(at_step=3, times=1),))
    assert [one.strikes_left for one in counts.setup(later).armed] == [1]


def test_each_device_has_its_own_count() -> None:
    counts = FaultCounts()
    first, second = (SimDevice(id=f"sim-{index}", faults=(DriverError(times=1),)) for index in range(2))
    counts.count_strike(first, 0)
    counts.count_strike(first, 1)  # of a script that has changed meanwhile
    assert (len(counts.setup(first).armed), len(counts.setup(second).armed)) == (0, 1)


def test_a_setup_goes_over_the_pipe() -> None:
    for device in parse_script(sample(), "every_fault.toml").devices:
        setup = FaultCounts().setup(device)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(setup), type=SimSetup) == setup


def test_a_simulated_device_says_that_it_is_one() -> None:
    cpu = Device(
        id="cpu",
        aliases=("cpu:0",),
        display_name="Some processor",
        kind=DeviceKind.CPU,
        backend=Backend.CPU,
        backend_index=0,
        vendor="Somebody",
        total_memory_bytes=123,
        precision_support=(),
        worker_pid=77,
        libraries=("torch 2",),
    )
    told = describe(SimDevice(id="sim-12", name="Small", memory_bytes=5 * 2**30), cpu)
    assert (told.id, told.display_name, told.total_memory_bytes) == ("sim-12", "Small", 5 * 2**30)
    assert (told.kind, told.backend, told.backend_index) == (DeviceKind.SIMULATED, Backend.SIMULATED, 12)
    assert (told.worker_pid, told.libraries) == (77, ("torch 2",))
    assert "cpu:0" not in told.aliases


def test_the_readme_shows_a_script_that_can_be_read() -> None:
    text = files("domains.device.simulated").joinpath("README.md").read_text()
    scripts = [block.split("```")[0] for block in text.split("```toml\n")[1:]]
    assert scripts
    for script in scripts:
        assert tomllib.loads(script)
        parse_script(script.encode(), "README.md")


@pytest.mark.parametrize("name", ["gpu-0", "sim-01", "sim-10000", "sim-"])
def test_a_wrong_id_is_told_with_the_ids_there_are(name: str) -> None:
    (violation,) = refusal(f'[[device]]\nid = "{name}"\n').violations
    assert violation.message == "must be sim-0 … sim-9999"
