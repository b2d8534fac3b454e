"""The commands against a real server."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from PIL import Image

from deviceops.inference.v1 import inference_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from domains.imaging import MEDIA_TYPES, encode, probe, read_manifest, read_marks
from server.cli.app import run
from server.cli.generation import demo
from server.cli.generation.request import Wish
from tests.server import asking
from tests.server.harness import RunningServer, running_server


@pytest.fixture(autouse=True)
def _address(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_ADDRESS", server.address)


def _jobs(capsys: pytest.CaptureFixture[str], *flags: str) -> processing_service_pb2.ListJobsResponse:
    capsys.readouterr()
    assert run(["jobs", "--json", *flags]) == 0
    return json_format.Parse(capsys.readouterr().out, processing_service_pb2.ListJobsResponse())


def test_generate_writes_a_picture_with_its_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "apple.png"
    command = ["generate", "a red apple", "--out", str(file), "--steps", "4", "--seed", "11"]
    assert run([*command, "--previews", str(tmp_path / "p"), "--preview-every", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(file)]
    with Image.open(file) as picture:
        assert picture.size == (256, 256)
    manifest = MEDIA_TYPES["image/png"].read_manifest(file.read_bytes())
    assert manifest is not None
    assert "a red apple" in manifest
    assert json.loads(manifest)
    assert read_marks(file.read_bytes())
    assert all(Image.open(preview).size for preview in (tmp_path / "p").iterdir())
    assert sorted(tmp_path.iterdir()) == [file, tmp_path / "p"]


def test_generate_starts_from_a_picture_file_of_any_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(encode(np.full((64, 72, 3), 99, np.uint8), "image/png"))
    large.write_bytes(encode(np.random.default_rng(1).integers(0, 256, (320, 320, 3), np.uint8), "image/png"))
    assert small.stat().st_size < 256 * 1024 < large.stat().st_size
    for picture, flags in ((small, []), (large, ["--fit", "cover", "--width", "72", "--height", "64"])):
        out = tmp_path / f"out-{picture.name}"
        command = ["generate", "an apple", "--image", str(picture), "--strength", "0", "--out", str(out), *flags]
        assert run([*command, "--no-inline"]) == 0
        with Image.open(out) as made:
            assert made.size == (72, 64)
    with Image.open(tmp_path / "out-small.png") as made:
        assert (np.asarray(made) == 99).all()


def test_flags_about_a_picture_without_one_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["generate", "x", "--out", str(tmp_path / "x.png"), "--strength", "0.5"]) == 2
    assert "--image" in capsys.readouterr().err
    missing = str(tmp_path / "none.png")
    assert run(["generate", "x", "--out", str(tmp_path / "x.png"), "--image", missing]) == 2
    assert "none.png" in capsys.readouterr().err


def test_a_seed_keeps_all_its_63_bits_on_its_way_into_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    seed, file = 2**63 - 1, tmp_path / "apple.png"
    command = ["generate", "a red apple", "--out", str(file), "--seed", str(seed), "--steps", "1"]
    assert run([*command, "--width", "64", "--height", "64"]) == 0
    assert f"seed {seed}." in capsys.readouterr().err
    manifest = MEDIA_TYPES["image/png"].read_manifest(file.read_bytes())
    assert json.loads(manifest or "")["seed"] == seed


def test_generate_leaves_out_of_the_file_what_is_not_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "apple.avif"
    command = ["generate", "a red apple", "--out", str(file), "--steps", "1", "--manifest", "none", "--no-provenance"]
    assert run(command) == 0
    assert capsys.readouterr().out.splitlines() == [str(file)]
    data = file.read_bytes()
    assert probe(data).media_type == "image/avif"
    assert (read_manifest(data), read_marks(data)) == (None, ())


def test_generate_json_is_one_message_a_line_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["generate", "an owl", "--out", str(tmp_path / "owl.webp"), "--steps", "2", "--count", "2", "--json"]
    assert run(command) == 0
    lines = capsys.readouterr().out.splitlines()
    messages = [json_format.Parse(line, inference_service_pb2.GenerateResponse()) for line in lines]
    assert messages[0].event.WhichOneof("kind") == "queued"
    assert messages[-1].event.WhichOneof("kind") == "succeeded"
    assert [image.index for image in messages[-1].result.images] == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"owl-1.webp", "owl-2.webp"}


def test_all_that_is_wrong_with_a_request_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["generate", "x", "--out", str(tmp_path / "x.png"), "--steps", "0"]
    command += ["--sampler", "nope", "--schedule", "never"]
    assert run(command) == 1
    told = capsys.readouterr()
    assert "generation.sampling.steps" in told.err
    assert "generation.sampling.sampler" in told.err
    assert "generation.sampling.sigma_schedule" in told.err
    assert not told.out
    assert not list(tmp_path.iterdir())


def test_jobs_are_listed_and_filtered_and_watched_after_their_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["generate", "a rocket", "--out", str(tmp_path / "r.png"), "--steps", "2"]) == 0
    (newest,) = _jobs(capsys, "--limit", "1").jobs
    assert newest.id in {job.id for job in _jobs(capsys, "--state", "succeeded").jobs}
    assert newest.id not in {job.id for job in _jobs(capsys, "--state", "failed", "--state", "queued").jobs}
    assert run(["jobs"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(newest.id)]
    assert line.startswith(f"{newest.id}  generation")
    assert line.rstrip().endswith("a rocket")
    assert run(["watch", newest.id, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    last = json_format.Parse(lines[-1], processing_service_pb2.WatchJobResponse())
    assert last.event.WhichOneof("kind") == "succeeded"
    assert run(["cancel", newest.id]) == 1
    assert "ILLEGAL_STATE" in capsys.readouterr().err


def test_watch_writes_previews_of_a_job_that_asked_for_none(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with asking.occupied(server) as (blocker, _):
        job_id = asking.submit(server, asking.picture(steps=40))
        asking.cancel(server, blocker)
        assert run(["watch", job_id, "--previews", str(tmp_path / "p"), "--preview-every", "2"]) == 0
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert names
    assert names <= {f"1-{step:04d}.jpg" for step in range(2, 80, 2)}


@pytest.mark.parametrize("command", ["devices", "models", "status"])
def test_lists_are_tables_for_people_and_one_object_for_programs(command: str, capsys: pytest.CaptureFixture[str]):
    assert run([command]) == 0
    table = capsys.readouterr().out
    assert run([command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert {"devices": "cpu", "models": "emoji-sd", "status": "inference"}[command] in table


def test_a_scan_tells_what_it_found(capsys: pytest.CaptureFixture[str]):
    assert run(["models", "--scan"]) == 0
    assert "Scan: " in capsys.readouterr().err


def test_a_demo_of_what_the_server_lacks_says_how_to_start_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["demo", "--lora", "--out", str(tmp_path)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    (folder,) = re.findall(r"--model-root (\S+),", told)
    assert {one.name for one in Path(folder).iterdir()} >= {"emoji-canny", "emoji-high-contrast.safetensors"}


def test_the_demo_makes_six_pictures_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # The model's own number of steps takes half a minute here.
    monkeypatch.setattr(demo, "Wish", partial(Wish, steps=2))
    assert run(["demo", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(tmp_path / "contact-sheet.png")]
    assert "Six pictures in" in told.err
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert min(sheet.size) > 2 * 256
    pictures = [path for path in tmp_path.iterdir() if path.name != "contact-sheet.png"]
    assert len({path.read_bytes() for path in pictures}) == 6


def test_the_demo_of_inpainting_makes_the_eyes_of_three_faces_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "Wish", partial(Wish, steps=2))
    assert run(["demo", "--inpaint", "--out", str(tmp_path)]) == 0
    for place in (1, 2, 3):
        first, changed = sorted(tmp_path.glob(f"{place}-*.png"), key=lambda file: file.stem.endswith("new-eyes"))
        before, after = (np.asarray(Image.open(file).convert("RGB")) for file in (first, changed))
        np.testing.assert_array_equal(before[136:], after[136:])
        assert (before[:136] != after[:136]).any()


def test_a_unix_socket_is_an_address_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    socket = tmp_path / "s"
    with running_server("--device", "cpu", "--socket", str(socket)):
        assert run(["status", "--address", f"unix:{socket}"]) == 0
    assert f"unix:{socket}" in capsys.readouterr().out


def test_prompt_tells_how_a_prompt_is_read(capsys: pytest.CaptureFixture[str]):
    assert run(["prompt", "an (apple:1.5)", "--syntax", "a1111", "--negative", "fog"]) == 0
    told = capsys.readouterr().out
    assert "prompt as text_encoder reads it" in told
    assert "negative_prompt as text_encoder reads it" in told
    assert "1.5" in told
