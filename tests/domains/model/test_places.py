"""Single files and component folders in the catalogue: which count, what a rescan reads, what goes and comes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.errors import ErrorReason
from domains.model import look
from domains.model.kind import ModelKind
from domains.model.look_memory import LookMemory
from domains.model.model import Model, ModelState
from domains.model.places import Form, forms
from domains.model.roots import Roots
from tests.domains.model.folders import write_json
from tests.domains.model.headers import write_header, write_published
from tests.domains.model.test_catalogue import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    assert place.database
    place.database.close()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a.safetensors", "b.safetensors"], [(Form.FILE, "a.safetensors"), (Form.FILE, "b.safetensors")]),
        (["model.safetensors"], [(Form.FILE, "model.safetensors")]),
        (["config.json", "model.safetensors"], [(Form.COMPONENT, "")]),
        (["adapter_config.json", "adapter_model.safetensors"], [(Form.COMPONENT, "")]),
        (["x-00001-of-00002.safetensors", "x-00002-of-00002.safetensors"], [(Form.COMPONENT, "")]),
        (
            ["config.json", "model.fp16.safetensors", "own.safetensors"],
            [(Form.COMPONENT, ""), (Form.FILE, "own.safetensors")],
        ),
        (["config.json", "readme.md"], []),
        (["a.ckpt"], [(Form.PICKLE, "a.ckpt")]),
        (["a.PTH", "b.pt"], [(Form.PICKLE, "a.PTH"), (Form.PICKLE, "b.pt")]),
        (["a.ckpt", "a.safetensors"], [(Form.FILE, "a.safetensors")]),
        (["config.json", "model.safetensors", "pytorch_model.bin"], [(Form.COMPONENT, "")]),
        (["pytorch_model.bin"], [(Form.PICKLE, "pytorch_model.bin")]),
    ],
)
def test_the_files_of_a_folder_are_models_by_their_names(files: list[str], found: list[tuple[Form, str]]) -> None:
    assert list(forms(files)) == found


def test_a_rescan_reads_no_file_that_has_not_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write_published(place.root / "vae.safetensors", "sd_vae")
    write_published(place.root / "net.safetensors", "sd1_controlnet")
    # Files as old as the clock of the file system is coarse.
    later = time.time() + 3600
    monkeypatch.setattr("domains.model.look_memory.time.time", lambda: later)
    assert place.scan().added == ("net", "vae")
    read: list[str] = []
    real = look.read_file

    def counted(path: Path, name: str, model_id: str) -> Model:
        read.append(name)
        return real(path, name, model_id)

    monkeypatch.setattr(look, "read_file", counted)
    assert place.scan().unchanged == 2
    assert read == []
    write_published(place.root / "net.safetensors", "sdxl_controlnet")
    assert place.scan().changed == ("net",)
    assert read == ["net"]
    assert place.catalogue.get("net").family == "sdxl"


def test_a_file_that_may_still_change_is_read_again(tmp_path: Path) -> None:
    path = write_published(tmp_path / "a.safetensors", "sd_vae")
    memory, reads = LookMemory(), list[int]()

    def read() -> Model:
        reads.append(1)
        return look.read_file(path, "a", "a")

    for _ in range(2):
        memory.read(path, "a", Roots([tmp_path]), read)
    assert len(reads) == 2


def test_a_file_that_goes_is_missing_and_comes_back_under_its_id(place: Place) -> None:
    path = write_published(place.root / "vae.safetensors", "sd_vae")
    place.scan()
    aside = path.rename(place.state / "vae.safetensors")
    assert place.scan().missing == ("vae",)
    assert place.catalogue.get("vae").state is ModelState.MISSING
    aside.rename(path)
    assert place.scan().changed == ("vae",)
    place.reopen()
    assert place.catalogue.get("vae").kind is ModelKind.VAE


@pytest.mark.skipif(os.name == "nt", reason="making a link requires a privilege")
def test_a_link_keeps_its_name_and_may_not_lead_out(place: Place) -> None:
    real = write_published(place.root / "blobs" / "0123abcd", "sd_vae")
    (place.root / "links").mkdir()
    (place.root / "links" / "my-vae.safetensors").symlink_to(real)
    outside = write_published(place.state / "secret.safetensors", "sd_vae")
    (place.root / "links" / "out.safetensors").symlink_to(outside)
    report = place.scan()
    assert report.added == ("my-vae",)
    assert [problem.reason for problem in report.problems] == [ErrorReason.PATH_OUTSIDE_ROOTS]


def test_a_component_folder_and_a_file_beside_it_are_two_models(place: Place) -> None:
    write_published(place.root / "net" / "diffusion_pytorch_model.safetensors", "sdxl_controlnet")
    write_json(place.root / "net" / "config.json", {"_class_name": "ControlNetModel"})
    write_header(place.root / "net" / "words.safetensors", {"emb_params": (2, 768)})
    assert place.scan().added == ("net", "words")
    assert place.catalogue.get("net").kind is ModelKind.CONTROLNET


def test_a_damaged_file_stops_nothing_and_is_told(place: Place) -> None:
    write_published(place.root / "good.safetensors", "sd_vae")
    (place.root / "bad.safetensors").write_bytes(b"\x00")
    (place.root / "old.pt").write_bytes(b"PK")
    report = place.scan()
    assert report.added == ("bad", "good")
    assert {Path(one.path).name: one.reason for one in report.problems} == {
        "bad.safetensors": ErrorReason.MODEL_CORRUPT,
        "old.pt": ErrorReason.MODEL_INCOMPATIBLE,
    }
    assert place.states() == {"bad": ModelState.CORRUPT, "good": ModelState.INCOMPATIBLE}
