"""Pickles become safetensors in a process that is thrown away, and never run their code."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from domains.errors import (
    AlreadyExists,
    DataLoss,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    NotSupported,
)
from domains.model import convert_pickle as convert_pickle_module
from domains.model.convert_pickle import SCRIPT, convert_pickle


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_tensors_of_a_checkpoint_are_written_as_they_are(tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    tensors = {"a.weight": weight, "a.view": weight[:2], "b": torch.arange(3), "half": torch.ones(2).half()}
    torch.save({"state_dict": {**tensors, "step": 7}, "global_step": 3}, tmp_path / "old.ckpt")
    done = convert_pickle(tmp_path / "old.ckpt")
    assert (done.path.name, done.tensors, done.left_out) == ("old.safetensors", 4, 1)
    found = load_file(done.path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())
    assert left(tmp_path) == ["old.ckpt", "old.safetensors"]


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "more": Evil(tmp_path / "made")}, tmp_path / "evil.ckpt")
    with pytest.raises(FailedPrecondition, match="could run code") as refused:
        convert_pickle(tmp_path / "evil.ckpt")
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert left(tmp_path) == ["evil.ckpt"]
    # The pickle is a real one: opened without care it runs.
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert (tmp_path / "made").is_dir()


def test_a_damaged_pickle_is_told_as_damaged(tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataLoss) as refused:
        convert_pickle(tmp_path / "cut.pt")
    assert refused.value.reason is ErrorReason.MODEL_CORRUPT
    assert left(tmp_path) == ["cut.pt"]


def test_a_cancelled_conversion_leaves_nothing(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.bin")

    def cancel(written: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_pickle(tmp_path / "a.bin", tell=cancel)
    assert left(tmp_path) == ["a.bin"]


def test_progress_is_told_several_times_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, go = tmp_path / "slow.py", tmp_path / "go"
    script.write_text(
        "import json, pathlib, sys\n"
        "pathlib.Path(sys.argv[2]).write_bytes(b'123')\n"
        f"while not pathlib.Path({str(go)!r}).exists():\n    pass\n"
        "print(json.dumps({'tensors': 1, 'left_out': 0}))\n"
    )
    monkeypatch.setattr("domains.model.convert_pickle.SCRIPT", script)
    (tmp_path / "a.ckpt").write_bytes(b"12345")
    told: list[tuple[int, int, float]] = []

    def tell(written: int, total: int) -> None:
        told.append((written, total, time.monotonic()))
        if [one[0] for one in told].count(3) == 3:
            go.touch()

    assert convert_pickle(tmp_path / "a.ckpt", tell=tell).written_bytes == 3
    assert {one[:2] for one in told} == {(0, 5), (3, 5)}
    assert min(after[2] - before[2] for before, after in pairwise(told)) < 0.5


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"x")
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(AlreadyExists):
        convert_pickle(tmp_path / "a.pth")
    assert (tmp_path / "a.safetensors").read_text() == "mine"


def test_a_file_that_came_up_during_a_conversion_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def converted(source: Path, part: Path, tell: object) -> dict[str, object]:
        part.write_text("theirs")
        (tmp_path / "a.safetensors").write_text("mine")
        return {"tensors": 1, "left_out": 0}

    monkeypatch.setattr("domains.model.convert_pickle._run", converted)
    (tmp_path / "a.pth").touch()
    with pytest.raises(AlreadyExists):
        convert_pickle(tmp_path / "a.pth")
    assert (left(tmp_path), (tmp_path / "a.safetensors").read_text()) == (["a.pth", "a.safetensors"], "mine")


def test_each_wrong_file_has_its_reason(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        convert_pickle(tmp_path / "no.ckpt")
    with pytest.raises(InvalidRequest, match=r"no \.ckpt"):
        convert_pickle(tmp_path / "a.safetensors")
    with pytest.raises(InvalidRequest, match="does not end"):
        convert_pickle(tmp_path / "a.ckpt", tmp_path / "a.txt")


def test_the_process_has_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "told.py"
    script.write_text("import json, os, sys; print(json.dumps({'error': 'empty', 'message': str(dict(os.environ))}))")
    monkeypatch.setattr("domains.model.convert_pickle.SCRIPT", script)
    monkeypatch.setenv("SECRET", "token")
    (tmp_path / "a.ckpt").write_bytes(b"x")
    with pytest.raises(FailedPrecondition) as refused:
        convert_pickle(tmp_path / "a.ckpt")
    assert "SECRET" not in refused.value.message


def test_a_torch_that_runs_code_of_pickles_reads_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the DirectML environment: the answer comes before the file is opened, so this one may be no pickle."""
    old = tmp_path / "old.py"
    old.write_text(
        "import runpy, sys, types\n"
        "for name in ('torch', 'safetensors', 'safetensors.torch'):\n    sys.modules[name] = types.ModuleType(name)\n"
        "sys.modules['torch'].__version__ = '2.4.1+cpu'\n"
        "sys.modules['safetensors.torch'].save_file = None\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr("domains.model.convert_pickle.SCRIPT", old)
    (tmp_path / "a.ckpt").write_bytes(b"x")
    with pytest.raises(NotSupported, match=r"torch 2\.4\.1\+cpu; use the main") as refused:
        convert_pickle(tmp_path / "a.ckpt")
    assert refused.value.reason is ErrorReason.FEATURE_NOT_INSTALLED
    assert left(tmp_path) == ["a.ckpt", "old.py"]


@pytest.mark.skipif(sys.platform != "linux", reason="what a process may do is limited by calls of Linux")
def test_the_process_has_limits_and_no_network() -> None:
    code = (
        "import resource, runpy, socket, sys\n"
        "place = socket.create_server(('127.0.0.1', 0)).getsockname()\n"
        "script = runpy.run_path(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\n"
        "script['_limit'](1000)\n"
        "script['_no_network']()\n"
        "print(*(resource.getrlimit(getattr(resource, f'RLIMIT_{name}'))[1] for name in ('AS', 'FSIZE', 'CPU', 'CORE')))\n"
        "sys.addaudithook(script['_refuse'])\n"
        "try:\n    socket.create_connection(place, 1)\n"
        "except PermissionError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-I", "-c", code, str(SCRIPT)]
    limits, refusal = subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout.splitlines()
    memory, file, compute, core = map(int, limits.split())
    assert all(0 < limit < 2**40 for limit in (memory, file))
    # A limit that was lower before stays.
    assert (compute, core <= 1) == (100, True)
    assert "not allowed while a pickle is read" in refusal


@pytest.mark.parametrize("said", ["", "no answer"])
def test_a_process_that_a_limit_ended_is_told_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    script = tmp_path / "ended.py"
    script.write_text(f"import sys; print({said!r}); sys.exit(9)", "utf-8")
    monkeypatch.setattr(convert_pickle_module, "SCRIPT", script)
    (tmp_path / "big.ckpt").write_bytes(b"x")
    with pytest.raises(DataLoss, match="ended with status 9") as refused:
        convert_pickle(tmp_path / "big.ckpt")
    assert refused.value.reason is ErrorReason.MODEL_CORRUPT
    assert left(tmp_path) == ["big.ckpt", "ended.py"]
