"""Dependencies have floors: the versions that mended known holes. Renew the list and its date after reading advisories."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
REVIEWED = "2026-11-28"
"""When the list was last renewed."""
FLOORS = {
    "torch": ("2.6", "CVE-2025-32434: torch.load runs code in spite of weights_only"),
    "transformers": ("5.3", "CVE-2026-4372: a config runs code in spite of trust_remote_code"),
    "diffusers": ("0.38", "CVE-2026-44513: custom_pipeline runs code in spite of trust_remote_code"),
    "opencv-python-headless": ("4.12", "CVE-2025-53644: an uninitialised pointer in the JPEG reader"),
    "pillow": ("12.2", "CVE-2026-25990: a write beyond the buffer in the PSD reader; CVE-2026-40192: a FITS bomb"),
    "protobuf": ("6.33.5", "CVE-2026-0994: nested Any in JSON passes the limit of recursion"),
    "filelock": ("3.20.3", "CVE-2025-68146, CVE-2026-22701: a symbolic link in place of the lock is followed"),
    "grpcio": ("1.85", "the attacks of tests/server/test_attacks.py were run against it"),
}
"""By package: the first version that is safe, and why."""
LOWER_FOR_DIRECTML = {"torch", "transformers", "diffusers"}
"""The same table of requirements serves the DirectML set, which has none newer: see SECURITY.md. The main set is
constraints.txt."""


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {canonicalize_name(one.name): one for one in map(Requirement, project["dependencies"])}


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("name", FLOORS)
def test_the_main_set_is_above_the_floor(name: str) -> None:
    assert pins()[name] >= Version(FLOORS[name][0]), FLOORS[name][1]


@pytest.mark.parametrize("name", sorted(set(FLOORS) - LOWER_FOR_DIRECTML))
def test_no_environment_may_have_less(name: str) -> None:
    floors = [Version(one.version) for one in requirements()[name].specifier if one.operator in (">=", "==")]
    assert floors
    assert max(floors) >= Version(FLOORS[name][0]), FLOORS[name][1]


def test_what_the_directml_set_lacks_is_written_down() -> None:
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    for name in LOWER_FOR_DIRECTML:
        assert name in page
    assert REVIEWED in page
