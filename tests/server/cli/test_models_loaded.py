"""`deviceops models …` against a real server."""

import json
import re
from pathlib import Path

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


def test_a_model_stays_on_the_host_when_it_leaves_its_device(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "load", "emoji-sd")
    assert f"unloaded {LOADED}" in told(capsys, "unload", LOADED, "--keep-on-host", "--drain-s", "5")
    assert "offloaded" in told(capsys, "loaded")
    told(capsys, "unload", "--all")
    assert LOADED not in told(capsys, "loaded")


def test_a_model_is_loaded_with_parts_that_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "unload", "--all")
    assert "take turns in device memory" in told(capsys, "load", "emoji", "--offload", "component")
    (one,) = json.loads(told(capsys, "loaded", "--json"))["loadedModels"]
    assert one["execution"]["offload"] == "OFFLOAD_MODE_COMPONENT"
    told(capsys, "unload", "--all")


def test_a_model_is_loaded_with_layers_that_pass_through_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "unload", "--all")
    flags = ("--offload", "layer", "--offload-budget", "16MiB")
    assert "some layer by layer" in told(capsys, "load", "emoji", *flags)
    (one,) = json.loads(told(capsys, "loaded", "--json"))["loadedModels"]
    assert one["execution"]["offload"] == "OFFLOAD_MODE_LAYER"
    assert one["execution"]["offloadBudgetBytes"] == str(16 * 2**20)
    told(capsys, "unload", "--all")


def test_a_model_is_loaded_with_the_ways_to_compute_that_flags_name(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "unload", "--all")
    told(capsys, "load", "emoji", "--no-vae-slicing", "--vae-tiling", "--vae-tile", "256", "--attention", "math")
    (one,) = json.loads(told(capsys, "loaded", "--json"))["loadedModels"]
    ways = {"vaeSlicing": False, "vaeTiling": True, "vaeTilePx": 256, "attentionKernel": "math"}
    assert ways.items() <= one["execution"].items()
    told(capsys, "unload", "--all")
    told(capsys, "load", "emoji", "--no-vae-tiling", "--no-compile")
    (one,) = json.loads(told(capsys, "loaded", "--json"))["loadedModels"]
    assert (one["execution"]["vaeTiling"], one["execution"]["compile"]) == (False, False)
    told(capsys, "unload", "--all")


def test_a_model_is_measured_and_its_figures_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "unload", "--all")
    flags = ("--size", "64x64", "--batch", "1", "--batch", "2", "--steps", "2", "--runs", "1", "--loads", "1")
    text = told(capsys, "benchmark", "emoji", *flags)
    assert "emoji-sd on cpu" in text
    assert "1 loads" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("64×64")]
    assert [(row[1], row[2]) for row in rows] == [("1", "2"), ("2", "2")]
    assert json.loads(told(capsys, "loaded", "--json")) == {}
    few = (*flags[:4], *flags[6:], "--vae-tiling", "--attention", "math")
    lines = [json.loads(line) for line in told(capsys, "benchmark", "emoji", *few, "--json").splitlines()]
    execution = lines[-1]["report"]["execution"]
    assert (execution["vaeTiling"], execution["attentionKernel"]) == (True, "math")
    (case,) = lines[-1]["report"]["cases"]
    assert case["imagesPerSecond"] > 0
    assert (case["runLatency"]["sampleCount"], case["stepLatency"]["sampleCount"]) == ("1", "2")
    assert run(["models", "benchmark", "emoji", "--size", "64"]) == 2


def test_each_part_of_a_load_has_its_precision_and_the_model_is_pinned(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "unload", "--all")
    precisions = ("--precision", "bfloat16", "--text-precision", "float32", "--vae-precision", "float32")
    told(capsys, "load", "emoji", "--device", "cpu", "--pin", *precisions, "--quantization", "int8")
    (one,) = json.loads(told(capsys, "loaded", "--json"))["loadedModels"]
    assert one["pinned"]
    assert one["execution"]["quantization"] == "int8"
    assert "bfloat16, int8" in told(capsys, "loaded")
    assert {part["componentId"]: part["precision"] for part in one["components"]} == {
        "unet": "PRECISION_BFLOAT16",
        "text_encoder": "PRECISION_FLOAT32",
        "vae": "PRECISION_FLOAT32",
    }
    assert f"unloaded {LOADED}" in told(capsys, "unload", "--device", "cpu", "--force")


def test_an_estimate_is_of_the_precisions_the_size_and_the_number_of_pictures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told(capsys, "unload", "--all")
    half, wide = "bfloat16", ("--width", "128", "--height", "64", "--batch", "3")
    flags = ("--precision", half, "--text-precision", half, "--vae-precision", half, "--device", "cpu", *wide)
    (halves,) = json.loads(told(capsys, "estimate", "emoji", *flags, "--json"))["estimates"]
    assert halves["execution"]["vaePrecision"] == "PRECISION_BFLOAT16"
    (whole,) = json.loads(told(capsys, "estimate", "emoji", "--precision", "float32", "--json"))["estimates"]
    coded = told(capsys, "estimate", "emoji", "--precision", "float32", "--quantization", "int8", "--json")
    assert int(json.loads(coded)["estimates"][0]["weightsBytes"]) < 0.7 * int(whole["weightsBytes"])
    # A measured load counts buffers too.
    assert 2 * int(halves["weightsBytes"]) == pytest.approx(int(whole["weightsBytes"]), rel=1e-3)
    assert run(["models", "estimate", "emoji", "--width", "65", "--height", "64"]) == 1


def test_a_measurement_takes_the_sampler_the_precision_and_the_device_that_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--size", "64x64", "--steps", "1", "--runs", "1", "--warmup", "0")
    named = ("--sampler", "euler", "--precision", "float32", "--quantization", "fp8_e4m3", "--device", "cpu")
    told(capsys, "unload", "--all")
    report = json.loads(told(capsys, "benchmark", "emoji", *flags, *named, "--json").splitlines()[-1])["report"]
    assert (report["sampler"], report["deviceId"]) == ("euler", "cpu")
    assert report["execution"]["precision"] == "PRECISION_FLOAT32"
    assert report["execution"]["quantization"] == "fp8_e4m3"
    told(capsys, "unload", "--all")


def test_a_validation_looks_at_the_named_component_and_at_the_base(capsys: pytest.CaptureFixture[str]) -> None:
    def read_bytes(*flags: str) -> int:
        lines = told(capsys, "validate", "emoji", *flags, "--json").splitlines()
        return int(json.loads(lines[-1])["report"]["readBytes"])

    assert 0 < read_bytes("--component", "vae") < read_bytes()
    assert run(["models", "validate", "emoji", "--base", "emoji-sd", "--depth", "header"]) == 1
    assert "is added to no base" in capsys.readouterr().out
    assert run(["models", "validate", "emoji", "--component", "transformer"]) == 1


def test_a_cache_is_compared_and_disagreement_is_the_exit_status(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache.json"
    cache.write_text('{"entries": [{"modelId": "gone", "blobId": "b", "generation": 1}]}')
    capsys.readouterr()
    assert run(["models", "reconcile", str(cache)]) == 1
    assert "unknown_model" in capsys.readouterr().out.replace(" ", "_")
    assert run(["models", "reconcile", str(cache), "--json"]) == 1
    kinds = {one["kind"] for one in json.loads(capsys.readouterr().out)["mismatches"]}
    assert "MODEL_CACHE_MISMATCH_KIND_UNKNOWN_MODEL" in kinds
    assert run(["models", "reconcile", str(cache), "--repair"]) == 1, "nothing is loaded of it"
    cache.write_text('{"entries": []}')
    assert run(["models", "reconcile", str(cache)]) == 0
    assert capsys.readouterr().err.startswith("All agrees.")
    cache.write_text("[")
    assert run(["models", "reconcile", str(cache)]) == 2


def test_what_a_load_would_cost_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    head, row = told(capsys, "estimate", "emoji", "--precision", "float32").splitlines()[:2]
    assert head.startswith("device  fits")
    assert row.startswith("cpu     yes")


def test_a_model_of_parts_is_registered_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert "would be registered as mix" in told(
            capsys, "register", "emoji-sd", "--part", "vae=emoji-sd", "--id", "mix", "--check"
        )
        asked = ("register", "emoji-sd", "--part", "vae=emoji-sd", "--id", "mix", "--name", "A mix")
        assert "is registered as mix" in told(capsys, *asked)
        assert "was known already" in told(capsys, *asked)
        assert json.loads(told(capsys, *asked, "--json"))["model"]["displayName"] == "A mix"
        assert re.search("^mix +sd1", told(capsys), re.MULTILINE)
        assert "vae" in told(capsys, "inspect", "mix")
    finally:
        assert "mix is forgotten" in told(capsys, "forget", "mix")
    assert run(["models", "register", "emoji-sd", "--part", "vae"]) == 2


def test_a_conversion_refuses_what_is_no_pickle(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "convert", "model.safetensors"]) == 2
    assert "no .ckpt" in capsys.readouterr().err


def test_a_conversion_of_a_model_is_asked_of_the_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["models", "convert", "emoji-sd"]) == 2
    assert "--to" in capsys.readouterr().err
    asked = ["--to", str(tmp_path / "new"), "--precision", "float32", "--keep", "vae", "--id", "wide"]
    assert run(["models", "convert", "emoji", *asked]) != 0
    assert "outside the model roots" in " ".join(capsys.readouterr().err.split())
    assert run(["models", "convert", "emoji", *asked, "--keep", "hat"]) != 0
    assert "has no component 'hat'" in " ".join(capsys.readouterr().err.split())
