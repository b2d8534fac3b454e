"""Upscaler models between the passes: their arithmetic, their tiles, and the second pass that begins with their pixels."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.checks.request import violations
from domains.inference.generation import Generation
from domains.inference.hires import HiresPass
from domains.inference.kept_file import KeptFile
from domains.inference.on_device import enlarged_run, upscaling
from domains.inference.on_device.upscaling import Growing, Tile, tiles_of, upscaled_tile
from domains.inference.outcome import CheckpointReady, RunFailed, RunFinished, RunStopped
from domains.inference.resampling import Resampling
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState
from domains.model.on_device import Upscaler, loading_upscaler
from domains.model.on_device.upscaler import Compact
from domains.model.weights_model import read_file
from domains.progress import Stage, StageStarted
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.control_files import stripes
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import reference_latents, reference_pipeline
from tests.domains.inference.on_device.test_hires import (
    FIRST,
    SECOND,
    asked,
    far,
    files,
    final_latents,
    hires,
    run,
    their_second,
)
from tests.domains.inference.on_device.test_hires import loop as loop
from tests.domains.inference.on_device.upscaler_files import NETS, write_upscaler


def loaded(model: Model, base: Any) -> Upscaler:
    steps = loading_upscaler(model, base)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def by_hand(tensors: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """The published arithmetic, by the names of the tensors alone."""
    if "conv_first.weight" not in tensors:
        last = max(int(name.split(".")[1]) for name in tensors)
        x = pixels
        for place in range(last + 1):
            weight = tensors[f"body.{place}.weight"]
            bias = tensors.get(f"body.{place}.bias")
            x = F.prelu(x, weight) if weight.dim() == 1 else F.conv2d(x, weight, bias, padding=1)
        scale = int((x.shape[1] / 3) ** 0.5)
        return F.pixel_shuffle(x, scale) + pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1)

    fold = int((tensors["conv_first.weight"].shape[1] / 3) ** 0.5)
    first = conv("conv_first", F.pixel_unshuffle(pixels, fold))
    x = first
    for block in sorted({name.split(".")[1] for name in tensors if name.startswith("body.")}, key=int):
        whole = x
        for dense in ("rdb1", "rdb2", "rdb3"):
            seen = x
            for number in range(1, 5):
                seen = torch.cat([seen, F.leaky_relu(conv(f"body.{block}.{dense}.conv{number}", seen), 0.2)], 1)
            x = x + 0.2 * conv(f"body.{block}.{dense}.conv5", seen)
        x = whole + 0.2 * x
    x = first + conv("conv_body", x)
    for name in ("conv_up1", "conv_up2"):
        x = F.leaky_relu(conv(name, x.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", x), 0.2))


@pytest.mark.parametrize("name", list(NETS))
def test_a_file_tells_the_network_and_its_tiles_make_the_whole_picture(
    loop: Recorder, tmp_path: Path, name: str
) -> None:
    model = write_upscaler(tmp_path / "net.safetensors", name)
    assert (model.kind, model.state) == (ModelKind.UPSCALER, ModelState.AVAILABLE), model.problem
    net, pixels = loaded(model, loop.loaded), stripes(80, 44)
    tensors = {key: one.float() for key, one in load_file(tmp_path / "net.safetensors").items()}
    picture = pixels.permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        whole, theirs = net(picture), by_hand(tensors, picture)
        assert (whole - theirs).abs().max() < 1e-5
        assert net.scale == int(name[-1])
        height, width = pixels.shape[:2]
        shown = theirs[0].mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
        canvas = torch.zeros_like(shown)
        for tile in tiles_of(height, width, 24):
            lines = slice(tile.top * net.scale, tile.bottom * net.scale)
            columns = slice(tile.left * net.scale, tile.right * net.scale)
            canvas[lines, columns] = upscaled_tile(net, pixels, tile, torch.device("cpu"))
        one = upscaled_tile(net, pixels, Tile(0, 0, height, width), torch.device("cpu"))
    assert (one.int() - shown.int()).abs().max() <= 1
    assert (canvas.int() - shown.int()).abs().max() <= 1


def test_a_picture_grows_until_it_has_the_size(loop: Recorder, tmp_path: Path) -> None:
    net = loaded(write_upscaler(tmp_path / "net.safetensors", "compact-2"), loop.loaded)
    growing, tiles = Growing(stripes(30, 20), (100, 60)), 0
    with torch.inference_mode():
        while (tile := growing.next_tile(net)) is not None:
            growing.put(tile, upscaled_tile(net, growing.pixels, tile, torch.device("cpu")), net.scale)
            tiles += 1
    assert tuple(growing.pixels.shape) == (80, 120, 3)
    assert tiles == 2


def test_the_second_pass_begins_with_the_pixels_of_the_upscaler(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = write_upscaler(tmp_path / "net.safetensors", "compact-2")
    second = upscaled(model)
    wanted = asked(tiny, second)
    pipe = reference_pipeline(tiny)
    first = reference_latents(pipe, wanted)
    net = loaded(model, loop.loaded)
    with torch.no_grad():
        shown = pipe.image_processor.postprocess(pipe.vae.decode(first / pipe.vae.config.scaling_factor).sample)
        start: list[Image.Image] = []
        for one in shown:
            pixels = torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8).view(FIRST[1], FIRST[0], 3)
            larger = upscaled_tile(net, pixels, Tile(0, 0, FIRST[1], FIRST[0]), torch.device("cpu"))
            start.append(Image.fromarray(larger.numpy()).resize(SECOND, Image.Resampling.LANCZOS))
    theirs = their_second(tiny, wanted, start, 0.75)
    monkeypatch.setattr(upscaling, "tiles_of", small_tiles)
    assert far(final_latents(loop, wanted, monkeypatch, upscaler=model), theirs) < 1e-4
    plain = hires(filter=Resampling.LANCZOS, of_pixels=True, strength=0.75)
    assert far(final_latents(loop, asked(tiny, plain), monkeypatch), theirs) > 1e-3
    assert loop.loop.resources.control_bytes() == {}


def small_tiles(height: int, width: int) -> Any:
    return tiles_of(height, width, 12)


def upscaled(model: Model) -> Any:
    return hires(
        filter=Resampling.LANCZOS,
        of_pixels=True,
        strength=0.75,
        upscaler_model_id=model.id,
        upscaler_sha256=model.sha256,
    )


def test_a_job_is_left_between_two_tiles_and_a_paused_one_makes_the_same_files(
    loop: Recorder, tiny: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = write_upscaler(tmp_path / "net.safetensors", "compact-2")
    wanted = asked(tiny, upscaled(model))
    whole = run(loop, wanted, upscaler=model)
    assert isinstance(whole[-1], RunFinished)
    monkeypatch.setattr(upscaling, "tiles_of", small_tiles)
    seen: list[Tile] = []
    name = f"hires {len(loop.order)}"

    def stopping(net: Any, pixels: Tensor, tile: Tile, *more: Any) -> Tensor:
        seen.append(tile)
        if len(seen) == 2:
            loop.loop.stop(name, Stop(kind=StopKind.PAUSE, cause="the device is needed"))
        return upscaled_tile(net, pixels, tile, *more)

    monkeypatch.setattr(enlarged_run, "upscaled_tile", stopping)
    paused = run(loop, wanted, upscaler=model)
    assert isinstance(paused[-1], RunStopped)
    assert len(seen) == 2
    assert loop.loop.resources.control_bytes() == {}
    (kept,) = [one for one in paused if isinstance(one, CheckpointReady)]
    (tmp_path / "kept").write_bytes(kept.data)
    file = KeptFile(path=str(tmp_path / "kept"), sha256=sha256(kept.data).hexdigest())
    again = run(loop, wanted, upscaler=model, kept=file)
    assert files(again) == files(whole)
    assert Stage.DENOISING not in [one.stage for one in again if isinstance(one, StageStarted)]


def test_an_upscaler_that_is_gone_or_of_another_shape_ends_the_job_before_its_first_step(
    loop: Recorder, tiny: Model, tmp_path: Path
) -> None:
    model = write_upscaler(tmp_path / "net.safetensors", "compact-2")
    (tmp_path / "net.safetensors").unlink()
    end = run(loop, asked(tiny, upscaled(model)), upscaler=model)[-1]
    assert isinstance(end, RunFailed)
    assert end.receipt.steps_executed == 0
    assert loop.loop.resources.control_bytes() == {}


def test_an_upscaler_that_enlarges_nothing_or_is_of_another_architecture_says_so(
    loop: Recorder, tmp_path: Path
) -> None:
    save_file(Compact(8, 2, 1).state_dict(), tmp_path / "same.safetensors")
    model = read_file(tmp_path / "same.safetensors", "same", "same")
    with pytest.raises(FailedPrecondition, match="1 times as long") as refused:
        loaded(model, loop.loaded)
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    first, inner = torch.ones(8, 3, 3, 3), torch.ones(4, 8, 3, 3)
    save_file({"model.0.weight": first, "model.1.sub.0.RDB1.conv1.0.weight": inner}, tmp_path / "old.safetensors")
    told = read_file(tmp_path / "old.safetensors", "old", "old")
    assert (told.kind, told.state) == (ModelKind.UPSCALER, ModelState.INCOMPATIBLE)
    assert "old names" in told.problem


def test_an_upscaler_sees_no_seamless_edges() -> None:
    wanted = Generation(prompt="a", hires_pass=HiresPass(upscaler_model_id="grow"), seamless_x=True)
    (violation,) = violations(wanted).together
    assert violation.field == "generation.hires_pass.upscaler_model_id"
