"""The shape of latents, by the config of a model's VAE, which can come from anywhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.checks.latents import latent_shape
from tests.domains.model.folders import VAE, write_json, write_model
from tests.domains.model.known import Known, known_in


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    with known_in(tmp_path) as found:
        write_model(found.root / "one")
        found.scan()
        yield found


def test_each_level_halves_the_picture(known: Known) -> None:
    assert latent_shape(known.model("one"), 512, 256) == (4, 32, 64)


@pytest.mark.parametrize(
    ("levels", "channels", "shape"), [(1, 1, (1, 512, 1024)), (1, 16, (16, 512, 1024)), (10, 4, (4, 1, 2))]
)
def test_the_config_says_the_shape(known: Known, levels: int, channels: int, shape: tuple[int, int, int]) -> None:
    changed = {"block_out_channels": [8] * levels, "latent_channels": channels}
    write_json(known.root / "one" / "vae" / "config.json", {**VAE, **changed})
    known.scan()
    assert latent_shape(known.model("one"), 1024, 512) == shape


def test_a_config_without_a_number_of_channels_means_four(known: Known) -> None:
    config = {name: value for name, value in VAE.items() if name != "latent_channels"}
    write_json(known.root / "one" / "vae" / "config.json", config)
    known.scan()
    assert latent_shape(known.model("one"), 512, 256)[0] == 4


@pytest.mark.parametrize(
    "changed",
    [
        {"block_out_channels": None},
        {"block_out_channels": 8},
        {"block_out_channels": []},
        {"block_out_channels": [1] * 17},
        {"latent_channels": "4"},
    ],
)
def test_a_config_that_says_no_shape_is_named(known: Known, changed: dict[str, object]) -> None:
    write_json(known.root / "one" / "vae" / "config.json", {**VAE, **changed})
    known.scan()
    with pytest.raises(FailedPrecondition, match=r"vae/config\.json of model one") as told:
        latent_shape(known.model("one"), 512, 256)
    assert told.value.reason is ErrorReason.MODEL_INCOMPATIBLE
