"""The contract compiles for every C# target, clashes with no usual name, and makes a picture over Grpc.Net.Client."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from protos.generate import ROOT, describe
from tests.csharp.name_check import name_check

HERE = Path(__file__).parent
KIT = ROOT.parent / "shared" / "dotnet" / "install"


def dotnet_environment() -> dict[str, str] | None:
    """The environment in which `dotnet` can be run: this one, or the one that the SDK kit beside the checkout makes."""
    if KIT.exists():
        script = f'eval "$("{KIT}")" && env -0'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
    return dict(os.environ) if shutil.which("dotnet") else None


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    found = dotnet_environment()
    if found is None:
        pytest.skip("no .NET SDK: `dotnet` is not on PATH and ../shared/dotnet is not there")
    out = tmp_path_factory.mktemp("csharp")
    names = out / "NameCheck.cs"
    names.write_text(name_check(describe()))
    # The same for every build here, so that what one has compiled the next need not: the contract takes a minute.
    return found | {"DEVICEOPS_CSHARP_OUT": str(out / "built"), "DEVICEOPS_NAME_CHECK": str(names)}


def dotnet(environment: Mapping[str, str], *arguments: str) -> None:
    """Runs `dotnet` in this folder. Raises with its whole output if it fails."""
    program = shutil.which("dotnet", path=environment["PATH"])
    assert program
    done = subprocess.run(
        [program, *arguments], cwd=HERE, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(400)
def test_contract_compiles_and_its_names_are_free(environment: Mapping[str, str]) -> None:
    dotnet(environment, "build", "DeviceOps.slnx", "--nologo", "-v", "quiet")


@pytest.mark.timeout(600)
def test_csharp_client_makes_the_picture(environment: Mapping[str, str]) -> None:
    from tests.server.harness import running_server

    dotnet(environment, "build", "DeviceOps.slnx", "--nologo", "-v", "quiet")
    # MappedBlobTests maps files there; elsewhere it is skipped.
    roots = {"DEVICEOPS_BLOB_ROOTS": '["/dev/shm"]'} if Path("/dev/shm").is_dir() else {}
    with running_server(environment=roots) as server:
        there = {**environment, "DEVICEOPS_ADDRESS": server.address}
        dotnet(there, "test", "--solution", "DeviceOps.slnx", "--no-build")
