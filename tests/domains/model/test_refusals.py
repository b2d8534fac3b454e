"""What a hostile or broken file must not do is refused at its last allowed value, and no earlier."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, NotFound
from domains.model import file_check, header_json, json_file, safetensors_header
from domains.model.component_folder import read_component
from domains.model.diffusers_folder import read_folder
from domains.model.file_check import check_file
from domains.model.fingerprint import Fingerprints, HashCancelled
from domains.model.header_json import entries
from domains.model.json_file import class_name, read_json
from domains.model.loaded import Stay
from domains.model.loaded_models import LoadedModels
from domains.model.roots import Roots
from domains.model.safetensors_header import read_header
from domains.model.validation import Depth
from tests.domains.model.folders import age, write_json, write_model, write_weights
from tests.domains.model.headers import write_published
from tests.domains.model.known import Known, known_in, loaded_as

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    with known_in(tmp_path) as each:
        yield each


def header(path: Path, pairs: dict[str, Any], data: int = 0, length: int | None = None) -> Path:
    text = json.dumps(pairs).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data))
    return path


def tensor(*shape: int, begin: int = 0, end: int = 0, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("pairs", "data", "wrong"),
    [
        ({"x" * 512: tensor(0)}, 0, ""),
        ({"x" * 513: tensor(0)}, 0, "a tensor name of 513"),
        ({"a": tensor(*[1] * 16, end=1)}, 1, ""),
        ({"a": tensor(*[1] * 17, end=1)}, 1, "an impossible shape"),
        ({"a": tensor(0)}, 0, ""),
        ({"a": tensor(1, end=1)}, 1, ""),
        ({"a": tensor(-1, -1, end=1)}, 1, "an impossible shape"),
        ({"a": tensor(0, 2**48 - 1)}, 0, ""),
        ({"a": tensor(0, 2**48)}, 0, "an impossible shape"),
        ({"a": tensor(1, begin=1, end=0)}, 1, "the bytes"),
        ({"a": tensor(0, begin=-1, end=-1)}, 0, "the bytes"),
        ({"a": tensor(1, end=2)}, 2, "the bytes"),
        ({"a": tensor(1, end=1, dtype="X8")}, 1, "unknown dtype"),
        ({"a": tensor(1, end=1), "b": tensor(1, begin=2, end=3)}, 3, "a hole of 1 bytes"),
        ({"a": tensor(2, end=2), "b": tensor(2, begin=1, end=3)}, 3, "overlapping"),
        ({"a": tensor(1, end=1)}, 2, "belong to no tensor"),
        ({"a": tensor(2, end=2)}, 1, "is cut off"),
        ({"__metadata__": {"a": 1}}, 0, "malformed metadata"),
        ({"__metadata__": {"a": "1"}}, 0, ""),
        ({"a": {"dtype": "U8"}}, 0, "malformed entry"),
    ],
)
def test_a_header_is_refused_for_each_fault(tmp_path: Path, pairs: dict[str, Any], data: int, wrong: str) -> None:
    path = header(tmp_path / "f.safetensors", pairs, data)
    if not wrong:
        read_header(path)
        return
    with pytest.raises(DataLoss, match=wrong) as caught:
        read_header(path)
    assert caught.value.reason is ErrorReason.MODEL_CORRUPT


def test_the_length_of_a_header_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.safetensors"
    for size in (0, 7):
        path.write_bytes(bytes(size))
        with pytest.raises(DataLoss, match=f"has {size} bytes; a safetensors file begins"):
            read_header(path)
    with pytest.raises(DataLoss, match="claims a header of 3 bytes in a file of 10"):
        read_header(header(path, {}, length=3))
    size = len(json.dumps({"a": tensor(0)}))
    monkeypatch.setattr(safetensors_header, "MAX_HEADER_BYTES", size)
    assert len(read_header(header(path, {"a": tensor(0)})).tensors) == 1
    with pytest.raises(DataLoss, match="at most"):
        read_header(header(path, {"ab": tensor(0)}))


def test_the_number_of_tensors_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_header, "MAX_TENSORS", 2)
    path = tmp_path / "f.safetensors"
    assert len(read_header(header(path, {name: tensor(0) for name in "ab"})).tensors) == 2
    with pytest.raises(DataLoss, match="lists more than 2"):
        read_header(header(path, {name: tensor(0) for name in "abc"}))


@pytest.mark.parametrize(
    "text", [rb'{"a":{"b":"\ud800"}}', rb'{"a":"\ud800"}', rb'{"\ud800":1}', rb'{"a":{"b":["\udfff"]}}']
)
def test_half_a_character_is_refused_wherever_it_stands(tmp_path: Path, text: bytes) -> None:
    if not text.endswith(b'"}'):  # of a tensor that is a text: it is refused as that
        with pytest.raises(ValueError, match="surrogates"):
            list(entries(text))
    (tmp_path / "f.json").write_bytes(text)
    with pytest.raises(DataLoss):
        read_json(tmp_path / "f.json")


def test_an_entry_that_is_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_json, "MAX_ENTRY_BYTES", 400)
    monkeypatch.setattr(header_json, "_USUAL_BYTES", 8)
    good = b'{"a":"' + b"x" * 390 + b'"}'
    assert len(list(entries(good))) == 1
    with pytest.raises(ValueError, match="longer than 400 bytes"):
        list(entries(b'{"a":"' + b"x" * 500 + b'"}'))
    with pytest.raises(ValueError) as broken:  # noqa: PT011  # its text is the parser's
        list(entries(b'{"a":"' + b"x" * 100))
    assert "longer than" not in str(broken.value)


def test_a_config_is_read_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a":1}')
    monkeypatch.setattr(json_file, "MAX_BYTES", 7)
    assert read_json(path) == {"a": 1}
    path.write_bytes(b'{"a":1} ')
    with pytest.raises(DataLoss, match="larger than 7 bytes"):
        read_json(path)


@pytest.mark.parametrize(
    ("named", "told"), [("A", "A"), (["m", "A"], "A"), (["A", "B", "C"], "C"), ([], ""), (7, ""), ([7], ""), (None, "")]
)
def test_the_class_of_custom_code_is_the_last_name(named: object, told: str) -> None:
    assert class_name({"_class_name": named}) == told


def test_a_component_without_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="there is no folder vae") as caught:
        read_component(tmp_path, "vae", Roots([tmp_path]).inside)
    assert caught.value.reason is ErrorReason.COMPONENT_MISSING


def test_weights_without_any_float_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", ("a", "b"), dtype="int64")
    with pytest.raises(FailedPrecondition, match="vae has weights of dtype I64 alone") as caught:
        read_component(folder, "vae", Roots([tmp_path]).inside)
    assert caught.value.reason is ErrorReason.MODEL_INCOMPATIBLE


def test_a_scan_of_nothing_is_refused(known: Known) -> None:
    with pytest.raises(NotFound) as caught:
        known.catalogue.beginnings([str(known.root / "absent")])
    assert caught.value.reason is ErrorReason.PATH_NOT_FOUND


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
def test_a_scan_ends_wherever_it_is_cancelled(known: Known, looks: int) -> None:
    for name in ("one", "two"):
        write_model(known.root / name)
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > looks

    report = asyncio.run(known.catalogue.rescan(lambda told: None, cancelled))
    assert report.cancelled
    assert len(report.added) <= max(0, looks - 2)


def test_a_loaded_model_that_is_not_there_is_not_changed() -> None:
    with pytest.raises(NotFound) as caught:
        LoadedModels().update("m@gpu", Stay(pinned=True))
    assert caught.value.reason is ErrorReason.LOADED_MODEL_NOT_FOUND


def test_an_update_that_changes_nothing_is_no_change(known: Known) -> None:
    loaded, changes = LoadedModels(), list[object]()
    one = loaded.put(loaded_as(known.model("emoji-sd")), Stay(pinned=True))
    loaded.on_change.append(changes.append)
    loaded.update(one.id, Stay(pinned=True))
    assert changes == []
    loaded.update(one.id, Stay(pinned=False))
    assert len(changes) == 1


@pytest.mark.parametrize("depth", [Depth.CHECKSUM, Depth.VALUES])
def test_a_check_ends_when_it_is_cancelled(tmp_path: Path, depth: Depth, monkeypatch: pytest.MonkeyPatch) -> None:
    age(write_model(tmp_path / "m"))
    model = read_folder(tmp_path / "m", "m", Roots([tmp_path]).inside, Fingerprints())
    sizes: list[int] = []
    passes = depth - 1
    whole = (tmp_path / "m" / UNET).stat().st_size
    with pytest.raises(HashCancelled):
        check_file(model, model.stamp(UNET), depth, lambda: sum(sizes) >= whole * (passes - 1), sizes.append)
    assert sum(sizes) == whole * (passes - 1)


def test_a_disk_that_fails_while_values_are_read_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(write_model(tmp_path / "m"))
    model = read_folder(tmp_path / "m", "m", Roots([tmp_path]).inside, Fingerprints())

    def broken(dtype: str, data: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(file_check, "non_finite", broken)
    checked = check_file(model, model.stamp(UNET), Depth.VALUES, lambda: False, lambda size: None)
    assert [each.reason for each in checked.findings] == [ErrorReason.MODEL_CORRUPT]
    assert "Input/output error" in checked.findings[0].message


def test_a_native_size_that_nothing_could_have_is_not_believed(tmp_path: Path) -> None:
    for sample, edge in ((64, 512), (65536 // 8, 65536), (65536 // 8 + 1, 0), (0, 0), (-1, 0)):
        folder = write_model(tmp_path / f"m{sample}")
        config = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4, "sample_size": sample}
        write_json(folder / "unet" / "config.json", config)
        model = read_folder(folder, "m", Roots([tmp_path]).inside, Fingerprints())
        assert (model.native_width_px, model.native_height_px) == (edge, edge)
    assert os.listdir(tmp_path)


def test_a_cancelled_scan_judges_no_further_place(known: Known) -> None:
    """Not even those that are told without being read, and those that are read without being hashed."""
    write_model(known.root / "a")
    (known.root / "b.ckpt").write_bytes(b"x")
    write_published(known.root / "c.safetensors", "sd_vae")
    for looks in (0, 3):
        answers = iter([False] * looks)
        report = asyncio.run(known.catalogue.rescan(lambda told: None, lambda answers=answers: next(answers, True)))
        assert report.cancelled
        assert (report.added, len(report.problems)) == ((), min(looks, 1))


@pytest.mark.parametrize(("after", "said"), [(400, False), (401, True)])
def test_only_what_is_longer_than_an_entry_may_be_is_called_too_long(
    monkeypatch: pytest.MonkeyPatch, after: int, said: bool
) -> None:
    monkeypatch.setattr(header_json, "MAX_ENTRY_BYTES", 400)
    before = b'{"a":"' + b"x" * 390 + b'",'
    with pytest.raises(ValueError) as broken:  # noqa: PT011  # its text is the parser's
        list(entries(before + b'"b":"' + b"x" * (after - 5)))
    assert ("longer than" in str(broken.value)) is said
