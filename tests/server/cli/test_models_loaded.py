"""`deviceops models …` against a real server."""

import json
import re

import pytest

from server.cli.app import run
from tests.server.harness import RunningServer

LOADED = "emoji-sd@cpu"


@pytest.fixture(autouse=True)
def _address(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)


def told(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert run(["models", *command]) == 0
    return capsys.readouterr().out


def test_how_long_a_loaded_model_stays_can_be_said_and_seen(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "load", "emoji-sd", "--keep", "600")
    assert re.search("for (9|10) min", told(capsys, "loaded"))
    assert "stays pinned" in told(capsys, "keep", LOADED, "--pin")
    assert "pinned" in told(capsys, "loaded", "--model", "emoji", "--device", "cpu")
    assert "stays until room is needed" in told(capsys, "keep", LOADED, "--no-pin", "--for", "0")
    (one,) = json.loads(told(capsys, "loaded", "--json"))["loadedModels"]
    assert (one["id"], one["keepAlive"]) == (LOADED, "0s")
    assert run(["models", "keep", LOADED]) == 2
    assert "--pin" in capsys.readouterr().err


def test_loaded_models_are_followed_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "load", "emoji-sd")
    (line,) = told(capsys, "loaded", "--watch", "--limit", "1").splitlines()
    assert f"{LOADED}  ready" in line
    (text,) = told(capsys, "loaded", "--watch", "--limit", "1", "--json").splitlines()
    assert json.loads(text)["loadedModel"]["state"] == "LOADED_MODEL_STATE_READY"


def test_models_are_brought_into_host_memory_and_hints_are_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert "emoji-sd@host is loaded" in told(capsys, "load", "emoji", "--host")
    assert "emoji-sd@host" in told(capsys, "loaded")
    told(capsys, "unload", "--all")
    assert "read ahead: emoji-sd" in told(capsys, "prefetch", "emoji", "--device", "cpu", "--in", "5")
    assert json.loads(told(capsys, "prefetch", "--json")) == {}


def test_what_a_load_would_cost_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    head, row = told(capsys, "estimate", "emoji", "--precision", "float32").splitlines()[:2]
    assert head.startswith("device  fits")
    assert row.startswith("cpu     yes")


def test_a_model_of_parts_is_registered_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert "would be registered as mix" in told(
            capsys, "register", "emoji-sd", "--part", "vae=emoji-sd", "--id", "mix", "--check"
        )
        assert "is registered as mix" in told(capsys, "register", "emoji-sd", "--part", "vae=emoji-sd", "--id", "mix")
        assert "was known already" in told(capsys, "register", "emoji-sd", "--part", "vae=emoji-sd", "--id", "mix")
        assert re.search("^mix +sd1", told(capsys), re.MULTILINE)
        assert "vae" in told(capsys, "inspect", "mix")
    finally:
        assert "mix is forgotten" in told(capsys, "forget", "mix")
    assert run(["models", "register", "emoji-sd", "--part", "vae"]) == 2


def test_a_conversion_refuses_what_is_no_pickle(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "convert", "model.safetensors"]) == 2
    assert "no .ckpt" in capsys.readouterr().err
