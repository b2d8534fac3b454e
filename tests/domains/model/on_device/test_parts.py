"""Models of parts load as one model, and share what other models have on the device already."""

import shutil
from pathlib import Path

import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save_file

from domains.model.composition import Recipe, composed
from domains.model.fingerprint import CLOCK_GRAIN_S
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, SharedModules, load, loading
from domains.model.weights_model import read_file
from tests.domains.inference.on_device.single_files import contents, give_configs, ldm_vae, write_single
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model
from tests.domains.model.folders import age

VAE = "vae/diffusion_pytorch_model.safetensors"


def two(place: Path) -> tuple[Model, Model]:
    """Two models; the second one's weights are others."""
    first = write_tiny_model(place / "a")
    shutil.copytree(place / "a", place / "b")
    for path in (place / "b").rglob("*.safetensors"):
        save_file({name: value + 0.01 for name, value in load_file(path).items()}, path)
    age(place / "a", 2 * CLOCK_GRAIN_S)
    age(place / "b", 2 * CLOCK_GRAIN_S)
    return tiny_model(Path(first.folder)), tiny_model(place / "b")


def mixed(first: Model, **taken: Model) -> Model:
    recipe = Recipe(base_id=first.id, taken=tuple((part, model.id) for part, model in taken.items()))
    known = {model.id: model for model in (first, *taken.values())}
    return composed(replace(first, id="mix"), recipe, known.__getitem__)


def same(ours: OnDeviceModel, theirs: OnDeviceModel, part: str) -> bool:
    found = ours.modules[part].state_dict()
    return all(torch.equal(found[name], value) for name, value in theirs.modules[part].state_dict().items())


def test_each_part_has_the_weights_of_its_source(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    mix, one, other = (load(model, "cpu") for model in (mixed(first, vae=second), first, second))
    assert [same(mix, one, part) for part in ("unet", "text_encoder", "vae")] == [True, True, False]
    assert same(mix, other, "vae")


def test_a_vae_in_a_file_of_its_own_is_converted(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    file = write_single(tmp_path / "kl.safetensors", ldm_vae(tmp_path / "b"))
    mix = mixed(first, vae=read_file(file, "kl", "kl"))
    # Published sizes are shipped; this VAE is tiny.
    sizes = (tmp_path / "b" / "vae" / "config.json", "vae/config.json")
    files = tuple(replace(one, real=str(sizes[0])) if one.path == sizes[1] else one for one in mix.files)
    assert same(load(replace(mix, files=files), "cpu"), load(second, "cpu"), "vae")


def finished(model: Model, shared: SharedModules) -> OnDeviceModel:
    steps = loading(model, "cpu", shared=shared)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_model_of_parts_shares_what_is_on_the_device_already(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    shared = SharedModules()
    one, other = finished(first, shared), finished(second, shared)
    mix = finished(mixed(first, vae=second), shared)
    assert mix.modules["unet"] is one.modules["unet"]
    assert mix.modules["text_encoder"] is one.modules["text_encoder"]
    assert mix.modules["vae"] is other.modules["vae"]


def checkpoint(file: Path, folder: Path, more: float) -> Model:
    """A checkpoint in one file with the folder's VAE, and other weights elsewhere."""
    tensors = {
        name: value if name.startswith("first_stage_model.") or not value.is_floating_point() else value + more
        for name, value in contents("sd1", folder).items()
    }
    write_single(file, tensors)
    give_configs(file, folder)
    return read_file(file, file.parent.name, file.parent.name)


def test_checkpoints_in_one_file_with_one_vae_hold_it_once(tmp_path: Path) -> None:
    folder = Path(write_tiny_model(tmp_path / "sd1").folder)
    models = [checkpoint(tmp_path / name / "one.safetensors", folder, more) for name, more in (("a", 0.1), ("b", 0.2))]
    shared = SharedModules()
    first, second = (finished(model, shared) for model in models)
    assert second.modules["vae"] is first.modules["vae"]
    assert second.modules["unet"] is not first.modules["unet"]
    assert second.modules["text_encoder"] is not first.modules["text_encoder"]
    # What a file held that is gone cannot be compared.
    (tmp_path / "a" / "one.safetensors").unlink()
    third = finished(checkpoint(tmp_path / "c" / "one.safetensors", folder, 0.3), shared)
    assert third.modules["vae"] is not first.modules["vae"]
    assert same(third, first, "vae")
