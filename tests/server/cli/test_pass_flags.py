"""The flags of components and passes become the fields of a request."""

from typing import Any

import pytest

from deviceops.common.v1 import image_pb2
from server.cli.console.failure import USAGE, CliError
from server.cli.generation.component_flags import components_of
from server.cli.generation.control_flags import controls_of
from server.cli.generation.pass_flags import details_of, hires_of
from server.cli.generation.request import Wish, generate_request


def generation(**flags: Any) -> Any:
    return generate_request(Wish(prompt="owl", **flags)).generation


def test_a_component_comes_from_a_model_or_is_left_out() -> None:
    asked = generation(components=components_of(["vae=other"], ["text_encoder_3"]))
    told = [(one.component_id, one.model_id, one.omitted) for one in asked.components]
    assert told == [("vae", "other", False), ("text_encoder_3", "", True)]


@pytest.mark.parametrize("given", ["vae", "vae=", "=other"])
def test_a_component_without_its_model_is_refused(given: str) -> None:
    with pytest.raises(CliError, match="vae=MODEL") as error:
        components_of([given], [])
    assert error.value.exit_code == USAGE


def test_a_second_pass_has_what_its_flags_say() -> None:
    asked = generation(hires=hires_of(1.5, 0.4, 8, "pixels")).hires_pass
    assert (asked.scale, asked.strength, asked.steps) == (1.5, 0.4, 8)
    assert asked.pixel_filter == image_pb2.RESAMPLING_FILTER_LANCZOS
    plain = generation(hires=hires_of(2.0, None, None, None)).hires_pass
    assert (plain.WhichOneof("enlargement"), plain.HasField("strength")) == (None, False)
    assert not generation().HasField("hires_pass")
    by_model = generation(hires=hires_of(2.0, None, None, None, "grow")).hires_pass
    assert (by_model.WhichOneof("enlargement"), by_model.upscaler_model_id) == ("upscaler_model_id", "grow")


def test_flags_that_say_how_need_the_one_that_says_how_much() -> None:
    with pytest.raises(CliError, match="--hires 2"):
        hires_of(None, 0.4, None, None)
    with pytest.raises(CliError, match="--hires 2"):
        hires_of(None, None, None, None, "grow")
    with pytest.raises(CliError, match="give one"):
        hires_of(2.0, None, None, "pixels", "grow")


def test_each_detector_is_a_pass_with_what_the_flags_say() -> None:
    asked = generation(details=details_of(["faces", "hands"], "an eye", 0.3, 12)).detail_passes
    told = [(one.detector_model_id, one.prompt, one.strength, one.steps) for one in asked]
    assert told == [("faces", "an eye", 0.3, 12), ("hands", "an eye", 0.3, 12)]
    (plain,) = generation(details=details_of(["faces"])).detail_passes
    assert (plain.HasField("strength"), plain.HasField("steps")) == (False, False)
    alone: list[dict[str, Any]] = [{"prompt": "an eye"}, {"strength": 0.3}, {"steps": 12}]
    for flags in alone:
        with pytest.raises(CliError, match="--detail MODEL"):
            details_of([], **flags)


def test_each_control_has_the_flags_in_its_place() -> None:
    first, second = controls_of(["a=a.png", "b=b.png"], ["canny"], [0.5, 2.0], "cover", ["", "depth"])
    assert (first.model, first.kind, first.weight, first.type) == ("a", "canny", 0.5, "")
    assert (second.model, second.kind, second.weight, second.type) == ("b", "", 2.0, "depth")
    with pytest.raises(CliError, match="--control-type is given 2 times for 1"):
        controls_of(["a=a.png"], [], [], "", ["depth", "pose"])


def test_latents_and_a_refiner_are_named() -> None:
    asked = generation(latents="b-1", strength=0.5, return_latents=True, refiner="r", refiner_start=0.7)
    assert (asked.init_latents.blob_id, asked.init_latents.strength, asked.return_latents) == ("b-1", 0.5, True)
    assert (asked.refiner.model_id, asked.refiner.start_ratio) == ("r", 0.7)
    assert not generation().HasField("refiner")
