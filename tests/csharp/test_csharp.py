"""The C# side of the contract.

It compiles for every target and clashes with no usual name; the client keeps its promises against a real server; the
packages alone are enough for the program of README.md.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4
from zipfile import ZipFile

import psutil
import pytest

from protos.generate import ROOT, describe
from tests.csharp.name_check import name_check
from tests.csharp.readme_program import VERSION, write_project
from tests.csharp.sdk import dotnet, sdk_environment
from tests.csharp.server_source import opened
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
    "first: NumericFailure",
    "second: 1 picture",
)
"""What the programs of the READMEs print, among other things."""
PNG = b"\x89PNG\r\n\x1a\n"
QUIET = ("-m:1", "--nologo", "-v", "quiet")


@pytest.fixture(scope="module")
def compiler() -> Iterator[Mapping[str, str]]:
    """The variables with which all builds share one compiler process: a new one for each project compiles itself anew."""
    name = f"deviceops-{uuid4().hex}"
    yield {"UseSharedCompilation": "true", "SharedCompilationId": name}
    for process in psutil.process_iter(["cmdline"]):
        if f"-pipename:{name}" in (process.info["cmdline"] or ()):
            process.kill()


@pytest.fixture(scope="module")
def environment(compiler: Mapping[str, str]) -> Mapping[str, str]:
    found = sdk_environment()
    names = OUT / "NameCheck.cs"
    names.parent.mkdir(parents=True, exist_ok=True)
    text = name_check(describe())
    if not names.exists() or names.read_text("utf-8") != text:
        names.write_text(text, "utf-8")
    return {
        **found,
        **compiler,
        "DEVICEOPS_CSHARP_OUT": str(OUT / "built"),
        # The compiler ends before code that is optimised by its profile has paid for the profile.
        "DOTNET_TieredPGO": "0",
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
def server_source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """How C# programs start servers of their own."""
    folders = (str(ROOT), str(ROOT / "generated" / "python"), os.environ.get("PYTHONPATH", ""))
    with opened(tmp_path_factory.mktemp("n")) as variables:
        yield {**variables, "PYTHONPATH": os.pathsep.join(folders)}


@pytest.fixture(scope="module")
def ram() -> Iterator[Path]:
    """A folder in RAM, where the system has such a place."""
    place = Path("/dev/shm")
    with TemporaryDirectory(prefix="deviceops-", dir=place if place.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The variables of servers whose own model makes a small picture: programs that name no size take 5 s of CPU for each
    picture of the embedded model."""
    from tests.domains.inference.on_device.tiny_families import write_tiny_family

    root = tmp_path_factory.mktemp("models")
    write_tiny_family("sd2", root / "tiny")
    return {"DEVICEOPS_MODEL_ROOTS": json.dumps([str(root)]), "DEVICEOPS_DEFAULT_MODEL": "tiny"}


@pytest.fixture(scope="module")
def quick_server(built: Mapping[str, str], ram: Path, quick: Mapping[str, str]) -> Iterator[RunningServer]:
    """A server for programs that ask for pictures of no size."""
    roots = {"DEVICEOPS_BLOB_ROOTS": json.dumps([str(ram.parent)])}
    with running_server(environment={**roots, **quick}) as running:
        yield running


@pytest.fixture(scope="module")
def server(built: Mapping[str, str], ram: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all of C#, started when everything is compiled. C# programs map files in /dev/shm."""
    roots = {"DEVICEOPS_BLOB_ROOTS": json.dumps([str(ram.parent)])}
    with running_server("--socket", str(tmp_path_factory.mktemp("s") / "socket"), environment=roots) as running:
        yield running


@pytest.mark.timeout(600)
def test_csharp_client_makes_the_picture(
    built: Mapping[str, str], server_source: Mapping[str, str], server: RunningServer
) -> None:
    there = {
        **built,
        **server_source,
        "DEVICEOPS_ADDRESS": server.address,
    }
    dotnet(there, "test", "--solution", "DeviceOps.slnx", "--no-build", folder=HERE)


@pytest.mark.timeout(200)
def test_the_samples_do_what_they_say(
    built: Mapping[str, str], quick: Mapping[str, str], quick_server: RunningServer, ram: Path, tmp_path: Path
) -> None:
    server, (root,) = quick_server, json.loads(quick["DEVICEOPS_MODEL_ROOTS"])
    samples = OUT / "built" / "bin"
    orchestrator = str(samples / "Orchestrator" / "debug" / "Orchestrator.dll")
    words = (server.address, "a red apple", "orchestrated.png", str(Path(root) / "tiny"), str(ram))
    said = dotnet(built, orchestrator, *words, folder=tmp_path)
    steps = ("budget: ", "reserved: ", "loaded: cached", "picture: ", "reconciled: 0 differences", "evicted")
    assert not [line for line in steps if line not in said], said
    assert list(ram.iterdir()) == []
    host = str(samples / "ImageGeneratorHost" / "debug" / "ImageGeneratorHost.dll")
    dotnet(built, host, "a red apple", "hosted.png", f"--DeviceOps:Address=http://{server.address}", folder=tmp_path)
    for name in ("orchestrated.png", "hosted.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)


@pytest.mark.timeout(500)
def test_the_packages_alone_run_the_program_of_the_readme(
    built: Mapping[str, str],
    server_source: Mapping[str, str],
    quick: Mapping[str, str],
    quick_server: RunningServer,
    tmp_path: Path,
) -> None:
    packages, fresh = tmp_path / "packages", tmp_path / "fresh"
    packed = ROOT / "clients" / "csharp" / "DeviceOps.slnx"
    dotnet(built, "pack", str(packed), "--no-build", "-c", "Debug", *QUIET, "-o", str(packages), folder=HERE)
    for name in ("Client", "Contracts", "Extensions.AI", "Testing"):
        for kind in ("nupkg", "snupkg"):
            assert_package(packages / f"DeviceOps.{name}.{VERSION}.{kind}")
    write_project(fresh, packages, known=Path(built.get("NUGET_PACKAGES") or Path.home() / ".nuget" / "packages"))
    alone = {name: value for name, value in built.items() if not name.startswith("DEVICEOPS_")}
    # NuGet keeps what it has unpacked by version: one folder of its own, or this run could get the packages of an older one.
    alone["NUGET_PACKAGES"] = str(tmp_path / "unpacked")
    dotnet(alone, "build", *QUIET, folder=fresh)
    said = dotnet({**alone, **server_source, **quick}, "run", "--no-build", "--", quick_server.address, folder=fresh)
    assert (fresh / "apple.png").read_bytes().startswith(PNG)
    assert (fresh / "apple.webp").read_bytes().startswith(b"RIFF")
    assert not [line for line in TOLD if line not in said], said


def assert_package(package: Path) -> None:
    """It has a README, and names no folder of the machine that made it: the same commit gives the same bytes elsewhere."""
    with ZipFile(package) as archive:
        assert package.suffix == ".snupkg" or "README.md" in archive.namelist()
        for name in archive.namelist():
            assert str(ROOT).encode() not in archive.read(name), f"{name} of {package.name}"
