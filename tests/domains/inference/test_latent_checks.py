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
    "changed",
    [
        {"block_out_channels": None},
        {"block_out_channels": 8},
        {"block_out_channels": []},
        {"block_out_channels": [1] * 100_000},
        {"latent_channels": "4"},
    ],
)
def test_a_config_that_says_no_shape_is_named(known: Known, changed: dict[str, object]) -> None:
    write_json(known.root / "one" / "vae" / "config.json", {**VAE, **changed})
    known.scan()
    with pytest.raises(FailedPrecondition, match=r"vae/config\.json of model one") as told:
        latent_shape(known.model("one"), 512, 256)
    assert told.value.reason is ErrorReason.MODEL_INCOMPATIBLE
