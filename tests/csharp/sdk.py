"""The .NET SDK: where it is found, and what is said where there is none."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from protos.generate import ROOT

KIT = ROOT.parent / "shared" / "dotnet" / "install"
"""Prints the environment of the SDK kit, where one lies beside the checkout."""
REQUIRED = "DEVICEOPS_CSHARP"
"""Set to `required`, a missing SDK is a failure instead of a skip. `.ci/run` sets it where the kit is there."""


def find_sdk(kit: Path = KIT, here: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """Returns the environment in which `dotnet` runs: the kit's, or this one; None without an SDK."""
    if kit.exists():
        script = f'eval "$("{kit}")" && env -0'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=dict(here))
        return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
    return dict(here) if shutil.which("dotnet", path=here.get("PATH", "")) else None


def sdk_environment(kit: Path = KIT, here: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns what `find_sdk` returns. Without an SDK the test is skipped, or fails where one is required."""
    if found := find_sdk(kit, here):
        return found
    missing = "no .NET SDK: `dotnet` is not on PATH and ../shared/dotnet is not there"
    if here.get(REQUIRED) == "required":
        pytest.fail(missing)
    pytest.skip(missing)


def dotnet(environment: Mapping[str, str], *arguments: str, folder: Path) -> str:
    """Returns what `dotnet` prints, run in a folder. Fails with its whole output."""
    program = shutil.which("dotnet", path=environment["PATH"])
    assert program
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
