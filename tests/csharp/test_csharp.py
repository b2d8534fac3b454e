"""The C# side of the contract.

It compiles for every target and clashes with no usual name; the client keeps its promises against a real server; the
packages alone are enough for the program of README.md.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from protos.generate import ROOT, describe
from tests.csharp.name_check import name_check
from tests.csharp.readme_program import VERSION, write_project
from tests.csharp.sdk import dotnet, sdk_environment
from tests.server.harness import RunningServer, running_server

HERE = Path(__file__).parent
OUT = ROOT / "out" / "csharp"
"""Compiled files stay here, so that the next run compiles only what has changed: the contract alone takes half a minute."""
TOLD = (
    "Succeeded",
    "stopped in denoising",
    "refused: InvalidField",
    "  generation.sampling.steps: ",
    "failed: RunTimeout",
)
"""What the program of README.md prints, among other things."""
PNG = b"\x89PNG\r\n\x1a\n"
QUIET = ("-m:1", "--nologo", "-v", "quiet")


@pytest.fixture(scope="module")
def environment() -> Mapping[str, str]:
    found = sdk_environment()
    names = OUT / "NameCheck.cs"
    names.parent.mkdir(parents=True, exist_ok=True)
    text = name_check(describe())
    if not names.exists() or names.read_text("utf-8") != text:
        names.write_text(text, "utf-8")
    return found | {
        "DEVICEOPS_CSHARP_OUT": str(OUT / "built"),
        "DEVICEOPS_NAME_CHECK": str(names),
        "DEVICEOPS_PACKAGE_VERSION": VERSION,
    }


@pytest.fixture(scope="module")
def built(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, once everything is compiled."""
    dotnet(environment, "build", "DeviceOps.slnx", *QUIET, folder=HERE)
    return environment


@pytest.mark.timeout(500)
def test_contract_compiles_and_its_names_are_free(built: Mapping[str, str]) -> None:
    assert (OUT / "built" / "bin" / "DeviceOps.Contract.Tests").is_dir()


@pytest.fixture(scope="module")
def server(built: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all of C#, started when everything is compiled. C# tests map files in /dev/shm."""
    roots = {"DEVICEOPS_BLOB_ROOTS": '["/dev/shm"]'} if Path("/dev/shm").is_dir() else {}
    with running_server("--socket", str(tmp_path_factory.mktemp("s") / "socket"), environment=roots) as running:
        yield running


@pytest.mark.timeout(600)
def test_csharp_client_makes_the_picture(built: Mapping[str, str], server: RunningServer) -> None:
    there = {
        **built,
        "DEVICEOPS_ADDRESS": server.address,
        # For the server that C# tests start themselves, to kill it.
        "DEVICEOPS_SERVER_COMMAND": f"{sys.executable} -m server",
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), str(ROOT / "generated" / "python"), os.environ.get("PYTHONPATH", "")]
        ),
    }
    dotnet(there, "test", "--solution", "DeviceOps.slnx", "--no-build", folder=HERE)


@pytest.mark.timeout(200)
def test_the_samples_do_what_they_say(built: Mapping[str, str], server: RunningServer, tmp_path: Path) -> None:
    samples = OUT / "built" / "bin"
    orchestrator = str(samples / "Orchestrator" / "debug" / "Orchestrator.dll")
    said = dotnet(built, orchestrator, server.address, "a red apple", "orchestrated.png", folder=tmp_path)
    assert not [line for line in ("budget: ", "loaded: emoji-sd", "picture: ", "evicted") if line not in said], said
    host = str(samples / "ImageGeneratorHost" / "debug" / "ImageGeneratorHost.dll")
    dotnet(built, host, "a red apple", "hosted.png", f"--DeviceOps:Address=http://{server.address}", folder=tmp_path)
    for name in ("orchestrated.png", "hosted.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)


@pytest.mark.timeout(500)
def test_the_packages_alone_run_the_program_of_the_readme(
    built: Mapping[str, str], server: RunningServer, tmp_path: Path
) -> None:
    packages, fresh = tmp_path / "packages", tmp_path / "fresh"
    packed = ROOT / "clients" / "csharp" / "DeviceOps.slnx"
    dotnet(built, "pack", str(packed), "--no-build", "-c", "Debug", *QUIET, "-o", str(packages), folder=HERE)
    for name in ("Client", "Contracts", "Extensions.AI", "Testing"):
        assert {f"DeviceOps.{name}.{VERSION}.{kind}" for kind in ("nupkg", "snupkg")} <= {
            p.name for p in packages.iterdir()
        }
    write_project(fresh, packages, known=Path(built.get("NUGET_PACKAGES") or Path.home() / ".nuget" / "packages"))
    alone = {name: value for name, value in built.items() if not name.startswith("DEVICEOPS_")}
    # NuGet keeps what it has unpacked by version: one folder of its own, or this run could get the packages of an older one.
    alone["NUGET_PACKAGES"] = str(tmp_path / "unpacked")
    dotnet(alone, "build", *QUIET, folder=fresh)
    said = dotnet(alone, "run", "--no-build", "--", server.address, folder=fresh)
    assert (fresh / "apple.png").read_bytes().startswith(PNG)
    for line in (
        "Succeeded",
        "stopped in denoising",
        "refused: InvalidField",
        "  generation.sampling.steps: ",
        "failed: RunTimeout",
    ):
        assert line in said, said
