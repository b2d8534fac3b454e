"""A conversion writes the same model in another precision, in the layout that was asked for, and changes no source."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains import storage
from domains.errors import ErrorReason, FailedPrecondition, ResourceExhausted
from domains.model.conversion import ConversionOrder, Written
from domains.model.model import Model, ModelLayout, ModelState
from domains.model.on_device.convert_child import _ended as ended  # pyright: ignore[reportPrivateUsage]
from domains.model.on_device.convert_child import convert
from domains.model.weights_model import read_file
from tests.domains.inference.on_device.single_files import stored
from tests.domains.inference.on_device.tiny_model import tiny_model


def converted(model: Model, place: Path, precision: str = "", *keep: str, layout: ModelLayout | None = None) -> Written:
    order = ConversionOrder(model=model, layout=layout or model.layout, precision=precision, keep=keep, part=str(place))
    return convert(order, lambda done, total: None)


def same(before: Mapping[str, Tensor], after: Mapping[str, Tensor], dtype: torch.dtype) -> bool:
    """Whether the tensors are those of before, rounded to a precision by torch."""
    return before.keys() == after.keys() and all(
        torch.equal(after[name], value.to(dtype)) and after[name].dtype is dtype for name, value in before.items()
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_folder_is_written_in_another_precision_and_a_kept_component_as_it_is(
    tiny: Model, tmp_path: Path, precision: str
) -> None:
    before, place, dtype = contents(Path(tiny.folder)), tmp_path / "new", getattr(torch, precision)
    written = converted(tiny, place, precision, "vae")
    made = tiny_model(place)
    assert (made.state, made.family, made.problem) == (ModelState.AVAILABLE, "sd1", "")
    precisions = {part.id: part.precision for part in made.components if part.parameter_count}
    assert precisions == {"unet": precision, "text_encoder": precision, "vae": "float32"}
    for part in ("unet", "text_encoder"):
        assert same(stored(Path(tiny.folder), part), stored(place, part), dtype)
    assert same(stored(Path(tiny.folder), "vae"), stored(place, "vae"), torch.float32)
    changed = [*stored(Path(tiny.folder), "unet").values(), *stored(Path(tiny.folder), "text_encoder").values()]
    assert written.max_absolute_error == max(float((one - one.to(dtype).float()).abs().max()) for one in changed)
    assert (written.converted, written.copied) == (len(changed), len(stored(place, "vae")))
    assert written.written_bytes == sum(len(data) for data in contents(place).values())
    assert contents(Path(tiny.folder)) == before, "the source is as it was"


def lone(path: Path, **tensors: Tensor) -> Model:
    """A VAE by itself, with tensors beside it."""
    save_file({**tensors}, path, {"note": "kept", "sshs_model_hash": "stale"})
    return read_file(path, path.stem, path.stem)


def test_what_does_not_fit_the_new_precision_is_clamped_and_counted_and_numbers_stay(tmp_path: Path) -> None:
    values = torch.tensor([1e6, -1e30, 65504.0, float("nan"), float("inf"), -float("inf"), 0.0])
    model = lone(tmp_path / "a.safetensors", weights=values, ids=torch.arange(5), half=torch.ones(2).half())
    written = converted(model, tmp_path / "b.safetensors", "float16")
    made = load_file(tmp_path / "b.safetensors")
    wanted = torch.tensor([65504.0, -65504.0, 65504.0, float("nan"), float("inf"), -float("inf"), 0.0]).half()
    assert torch.equal(made["weights"].nan_to_num(nan=7.0), wanted.nan_to_num(nan=7.0))
    assert torch.equal(made["ids"], torch.arange(5))
    assert (written.clamped, written.converted, written.copied) == (2, 1, 2)
    assert written.max_absolute_error == pytest.approx(1e30)


def test_a_wider_precision_loses_nothing(tmp_path: Path) -> None:
    halves = torch.randn(3, 5).half()
    written = converted(lone(tmp_path / "a.safetensors", a=halves), tmp_path / "b.safetensors", "float32")
    assert torch.equal(load_file(tmp_path / "b.safetensors")["a"], halves.float())
    assert (written.max_absolute_error, written.clamped) == (0.0, 0)


def test_the_metadata_stay_but_for_hashes_of_the_old_file(tmp_path: Path) -> None:
    converted(lone(tmp_path / "a.safetensors", a=torch.ones(2)), tmp_path / "b.safetensors", "float16")
    assert dict(read_file(tmp_path / "b.safetensors", "b", "b").metadata) == {"note": "kept"}


def test_shards_become_one_file(tmp_path: Path, tiny: Model) -> None:
    folder, only = Path(tiny.folder), "diffusion_pytorch_model.safetensors"
    whole = load_file(folder / "unet" / only)
    names = sorted(whole)
    (folder / "unet" / only).unlink()
    for number, some in enumerate((names[::2], names[1::2]), 1):
        shard = f"diffusion_pytorch_model.fp16-{number:05}-of-00002.safetensors"
        save_file({name: whole[name] for name in some}, folder / "unet" / shard)
    converted(tiny_model(folder), tmp_path / "new", "bfloat16")
    assert [path.name for path in (tmp_path / "new" / "unet").glob("*.safetensors")] == [only]
    assert same(whole, stored(tmp_path / "new", "unet"), torch.bfloat16)


def test_a_source_that_was_replaced_since_its_scan_is_refused(tiny: Model, tmp_path: Path) -> None:
    path = Path(tiny.folder) / "vae" / "diffusion_pytorch_model.safetensors"
    other = {name: value + 1 for name, value in load_file(path).items()}
    path.unlink()
    save_file(other, path)
    with pytest.raises(FailedPrecondition) as refused:
        converted(tiny, tmp_path / "new", "float16")
    assert refused.value.reason is ErrorReason.ILLEGAL_STATE
    assert not (tmp_path / "new").exists()


def test_a_disk_without_room_is_told_before_anything_is_written(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=storage.KEPT_FREE_BYTES + 1000)

    def usage(_: object) -> object:
        return full

    monkeypatch.setattr(storage.shutil, "disk_usage", usage)
    with pytest.raises(ResourceExhausted) as refused:
        converted(tiny, tmp_path / "new", "float16")
    assert refused.value.reason is ErrorReason.STORAGE_FULL
    assert refused.value.facts["free_bytes"] == str(storage.KEPT_FREE_BYTES + 1000)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("place", "error", "reason"),
    [
        ("threading.Thread.start", RuntimeError("can't start new thread"), ErrorReason.QUOTA_EXCEEDED),
        ("convert", MemoryError(), ErrorReason.HOST_OUT_OF_MEMORY),
        ("convert", OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), ErrorReason.HOST_OUT_OF_MEMORY),
    ],
)
def test_what_the_system_refuses_the_process_is_told_by_its_name(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception, reason: ErrorReason
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("domains.model.on_device.convert_child._end_with_the_server", lambda: None)
    monkeypatch.setattr(f"domains.model.on_device.convert_child.{place}", refuse)
    order = ConversionOrder(model=tiny, layout=tiny.layout, precision="float16", part=str(tmp_path / "new"))
    failure = ended(order, lambda done, total: None).failure
    assert failure is not None
    assert failure.reason == reason


def test_a_fault_of_the_conversion_is_no_shortage(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("domains.model.on_device.convert_child._end_with_the_server", lambda: None)
    monkeypatch.setattr("domains.model.on_device.convert_child.convert", fail)
    order = ConversionOrder(model=tiny, layout=tiny.layout, precision="float16", part=str(tmp_path / "new"))
    with pytest.raises(RuntimeError, match="a fault"):
        ended(order, lambda done, total: None)
