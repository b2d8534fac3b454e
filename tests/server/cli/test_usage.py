"""The command line by itself: quick to start, nothing heavy inside, mistakes told before anything is asked of a server."""

import subprocess
import sys
from pathlib import Path

import pytest

from server.cli.app import run
from server.cli.calls.address import DEFAULT_ADDRESS
from server.cli.console.failure import USAGE
from server.settings import Settings


def test_help_loads_neither_grpc_nor_torch_nor_pictures():
    heavy = "grpc deviceops torch diffusers numpy PIL cv2 pydantic_settings rich"
    program = (
        "import sys; from server.cli.app import run; code = run(['generate', '--help']);"
        f"print([name for name in {heavy.split()!r} if name in sys.modules], code)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[] 0"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    listing = "serve generate demo jobs watch cancel devices models events status device memory blobs"
    for command in listing.split():
        assert f"\n  {command} " in told


def test_the_default_address_is_where_a_server_listens_by_default():
    fields = Settings.model_fields
    assert f"{fields['host'].default}:{fields['port'].default}" == DEFAULT_ADDRESS


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["generate"], "prompt"),
        (["generate", "x", "--count", "0"], "--count"),
        (["generate", "x", "--format", "gif"], "--format"),
        (["generate", "x", "--out", "a.tiff"], "--out"),
        (["generate", "x", "--steps", "many"], "--steps"),
        (["jobs", "--state", "lost"], "--state"),
        (["cancel"], "job"),
        (["frobnicate"], "frobnicate"),
        (["serve", "--port", "70000"], "port"),
        (["serve", "--jobs-per-device", "0"], "jobs_per_device"),
        (["serve", "--model-root", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_a_mistake_is_named_and_ends_with_2(command: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run(command) == USAGE
    told = capsys.readouterr()
    assert said.lower() in told.err.lower()
    assert "Traceback" not in told.err


def test_previews_do_not_go_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p").write_bytes(b"")
    assert run(["generate", "x", "--out", str(tmp_path / "a.png"), "--previews", str(tmp_path / "p")]) == USAGE
    assert "name a folder" in capsys.readouterr().err
