"""Ways to make a picture, on a CUDA device and on the CPU: the pictures differ by rounding alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domains.errors import NotSupported
from domains.inference.given import Given
from domains.inference.outcome import RunFinished
from domains.inference.samplers import SAMPLERS
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.on_device import load
from domains.model.ways import AS_THE_SERVER_CHOOSES, Ways
from tests.domains.inference.on_device.from_picture import from_picture
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_hires import hires
from tests.domains.inference.on_device.test_image_to_image import PIXELS, SIZE, shown, stored
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("no_tf32")]

WAYS: Mapping[str, Mapping[str, Any]] = {
    **{f"a picture, {sampler}": {"sampler": sampler, "init_image": from_picture(0.5)} for sampler in SAMPLERS},
    "several pictures": {"init_image": from_picture(0.5), "seeds": (1, 2, 3)},
    "a second pass of latents": {"width_px": 32, "height_px": 16, "hires_pass": hires(width_px=64, height_px=32)},
    "a second pass of pixels": {
        **{"width_px": 32, "height_px": 16},
        "hires_pass": hires(width_px=64, height_px=32, of_pixels=True),
    },
}
TOLERANCE = 3
"""Of 255: sums are added in another order."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("ways") / "tiny"
    write_tiny_model(folder)
    return tiny_model(folder)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_makes_the_picture_of_the_cpu(model: Model, way: str, tmp_path: Path) -> None:
    plain: dict[str, Any] = {"steps": 4, "sampler": "euler", **SIZE}
    wanted = request(model, **{**plain, **WAYS[way]})
    picture = None if wanted.init_image is None else stored(tmp_path, PIXELS)
    pictures = list[Any]()
    for device in ("cpu", "cuda"):
        loop = Recorder(model, device, "float32")
        loop.loop.submit("a", Given(model, wanted, picture=picture))
        loop.run()
        assert isinstance(loop.last("a"), RunFinished)
        pictures.append(np.stack([shown(one) for one in loop.files("a")]).astype(np.int16))
        del loop.loaded
        loop.loop.close()
    cpu, cuda = pictures
    assert np.abs(cpu - cuda).max() <= TOLERANCE


KERNELS: Mapping[str, tuple[Ways, str]] = {
    "flash": (Ways(attention_kernel="flash"), "float16"),
    "memory_efficient": (Ways(attention_kernel="memory_efficient"), "float32"),
    "math": (Ways(attention_kernel="math"), "float32"),
    "slices": (Ways(attention_kernel="math", attention_slicing=True), "float32"),
    "all at once": (Ways(vae_slicing=False), "float32"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_way_to_compute_makes_the_picture_of_the_usual_one(model: Model, name: str) -> None:
    ways, precision = KERNELS[name]
    plain: dict[str, Any] = {"steps": 4, "sampler": "euler", "seeds": (1, 2), **SIZE}
    wanted = request(model, **plain)
    pictures = list[Any]()
    for chosen in (AS_THE_SERVER_CHOOSES, ways):
        loop = Recorder(model, "cuda", precision, chosen)
        loop.loop.submit("a", Given(model, wanted))
        loop.run()
        assert isinstance(loop.last("a"), RunFinished)
        pictures.append(np.stack([shown(one) for one in loop.files("a")]).astype(np.int16))
        del loop.loaded
        loop.loop.close()
    assert np.abs(pictures[0] - pictures[1]).max() <= TOLERANCE


def test_a_kernel_of_half_precision_is_refused_in_float32_before_any_weight_is_read(model: Model) -> None:
    with pytest.raises(NotSupported, match=r"another execution\.precision than float32"):
        load(model, "cuda", execution=Execution(precision="float32", ways=Ways(attention_kernel="flash")))
