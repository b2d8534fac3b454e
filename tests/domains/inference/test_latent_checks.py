"""The shape of latents, by the config of a model's VAE, which can come from anywhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference.checks.latents import (
    latent_exclusions,
    latent_shape,
    latent_violations,
    part_with,
    resolved_latents,
)
from domains.inference.generation import Generation, Sampling
from domains.inference.init_image import InitImage
from domains.inference.latents import InitLatents, ReadLatents, ResolvedLatents
from domains.inference.step_range import StepRange
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


FROM_TWO = Sampling(part=StepRange(first_step=2))
LATENTS, PICTURE = InitLatents(blob_id="b-1"), InitImage(blob_id="b-2")


@pytest.mark.parametrize(
    ("changes", "alone", "together"),
    [
        ({"init_latents": LATENTS}, [], []),
        ({"init_latents": InitLatents(blob_id="")}, ["init_latents.blob_id"], []),
        ({"init_latents": InitLatents(blob_id="b", strength=1.001)}, ["init_latents.strength"], []),
        ({"init_latents": InitLatents(blob_id="b", strength=1.0)}, [], []),
        ({"init_latents": LATENTS, "init_image": PICTURE}, [], ["init_latents"]),
        (
            {"init_latents": InitLatents(blob_id="b", strength=0.5), "sampling": FROM_TWO},
            [],
            ["sampling.first_step"],
        ),
        ({"init_latents": LATENTS, "sampling": FROM_TWO}, [], []),
        ({"return_latents": True}, [], []),
        ({"return_latents": True, "init_image": PICTURE}, [], []),
        ({"return_latents": True, "init_image": InitImage(blob_id="b", strength=0.0)}, [], ["return_latents"]),
        ({"return_latents": False, "init_image": InitImage(blob_id="b", strength=0.0)}, [], []),
    ],
)
def test_latents_exclude_a_picture_and_a_first_step(
    changes: dict[str, Any], alone: list[str], together: list[str]
) -> None:
    asked = Generation(prompt="p", **changes)
    assert [one.field.removeprefix("generation.") for one in latent_violations(asked)] == alone
    assert [one.field.removeprefix("generation.") for one in latent_exclusions(asked)] == together


@pytest.mark.parametrize(
    ("latents", "part", "add_noise"),
    [
        (LATENTS, StepRange(first_step=2), False),
        (LATENTS, StepRange(first_step=2, add_noise=True), True),
        (LATENTS, StepRange(last_step=2), None),
        (None, StepRange(first_step=2), None),
    ],
)
def test_latents_that_are_handed_over_in_mid_walk_hold_their_noise(
    latents: InitLatents | None, part: StepRange, add_noise: bool | None
) -> None:
    asked = Generation(prompt="p", init_latents=latents, sampling=Sampling(part=part))
    assert part_with(asked) == replace(part, add_noise=add_noise)


@pytest.mark.parametrize(
    ("shape", "fits"), [((1, 4, 8, 16), True), ((3, 4, 8, 16), True), ((2, 4, 8, 16), False), ((1, 4, 16, 8), False)]
)
def test_latents_have_the_shape_of_the_result_once_or_for_each_picture(
    known: Known, shape: tuple[int, ...], fits: bool
) -> None:
    read = ReadLatents(blob_id="b-1", sha256="0" * 64, shape=shape)
    asked = Generation(prompt="p", init_latents=LATENTS)
    model = known.model("one")
    if fits:
        found = resolved_latents(asked, read, model, (128, 64), 3)
        assert found == ResolvedLatents(blob_id="b-1", sha256="0" * 64, strength=1.0)
        half = Generation(prompt="p", init_latents=InitLatents(blob_id="b-1", strength=0.5))
        assert resolved_latents(half, read, model, (128, 64), 3) == ResolvedLatents(
            blob_id="b-1", sha256="0" * 64, strength=0.5
        )
    else:
        with pytest.raises(InvalidRequest, match="128×64 px of model one are 3×4×8×16"):
            resolved_latents(asked, read, model, (128, 64), 3)
    assert resolved_latents(asked, None, model, (128, 64), 3) is None
    assert resolved_latents(Generation(prompt="p"), read, model, (128, 64), 3) is None
