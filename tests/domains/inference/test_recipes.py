"""What picture files say about how they were made: our manifest, A1111's text, ComfyUI's graph, InvokeAI's metadata."""

import contextlib
import io
import json
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import encode
from domains.imaging.texts import TEXT_BYTES, read_texts
from domains.inference.a1111 import parameters_of
from domains.inference.generation import EncodeOptions, Generation, ManifestDetail, Sampling
from domains.inference.hires import HiresPass, ResolvedHires
from domains.inference.manifest import manifest_of, to_json
from domains.inference.prompts import LongPrompt, Syntax
from domains.inference.recipes import Recipe, Verdict, compared, recipe_of
from domains.inference.resampling import Resampling
from domains.inference.resolution.resolve import resolve
from domains.inference.seed_variation import SeedVariation
from domains.inference.step_range import ALL_STEPS, StepRange
from tests.domains.inference.on_device.requests import embedded_model, request

PIXELS = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
A1111 = (
    "a (red:1.2) apple, on a table <lora:glow:0.8>\nNegative prompt: fog, \nrain\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 4294967295, Size: 512x768, "
    'Model hash: 6ce0161689, Model: dreamy_v3, Clip skip: 2, Hires upscale: 2, Lora hashes: "glow: 1a2b", Version: v1.9'
)


def graph(**changes: Any) -> dict[str, Any]:
    sampler = {
        **{"seed": 2**63 - 1, "steps": 12, "cfg": 7.5, "sampler_name": "euler_ancestral", "scheduler": "karras"},
        **{"denoise": 1.0, "model": ["5", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]},
    }
    return {
        "1": {"class_type": "KSampler", "inputs": sampler | changes},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "an (owl:1.2)", "clip": ["5", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["5", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 640, "batch_size": 1}},
        "5": {
            "class_type": "LoraLoader",
            "inputs": {"lora_name": "a\\glow.safetensors", "strength_model": 0.5, "model": ["6", 0]},
        },
        "6": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd/dreamy_v3.safetensors"}},
        "7": {"class_type": "FaceFixer", "inputs": {}},
    }


INVOKE: dict[str, Any] = {
    **{
        "generation_mode": "txt2img",
        "positive_prompt": "an owl",
        "negative_prompt": "fog",
        "width": 512,
        "height": 512,
    },
    **{
        "seed": 7,
        "steps": 30,
        "cfg_scale": 5.0,
        "scheduler": "dpmpp_2m_k",
        "model": {"name": "dreamy_v3", "hash": "x"},
    },
    "loras": [{"model": {"name": "glow"}, "weight": 0.4}],
}


def png(**texts: str) -> bytes:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def recipe(**texts: str) -> Recipe:
    return recipe_of(read_texts(png(**texts)))


def refused(**texts: str) -> str:
    with pytest.raises(InvalidRequest) as error:
        recipe(**texts)
    assert error.value.reason is ErrorReason.BAD_IMAGE
    return error.value.violations[0].message


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp"])
def test_our_own_file_says_the_request_that_made_it(media_type: str) -> None:
    asked = Generation(
        prompt="an [owl:cat:0.5]",
        negative_prompt="fog",
        prompt_syntax=Syntax.A1111,
        image_count=3,
        output=EncodeOptions(media_type=media_type, a1111_parameters=True),
    )
    resolved = resolve(asked, embedded_model())
    manifest = manifest_of(resolved, 1)
    file = encode(PIXELS, media_type, manifest=to_json(manifest), parameters=parameters_of(resolved, 1))
    found = recipe_of(read_texts(file))
    assert (found.source, found.model.sha256) == ("deviceops", resolved.model_sha256)
    assert found.original == msgspec.structs.replace(resolved, seeds=resolved.seeds[1:2])
    assert dict(found.versions)["server_version"] == manifest.deviceops


def test_a_manifest_without_prompts_does_not_say_enough() -> None:
    resolved = request(embedded_model(), output=EncodeOptions(manifest=ManifestDetail.RECIPE))
    file = encode(PIXELS, "image/png", manifest=to_json(manifest_of(resolved, 0)))
    with pytest.raises(InvalidRequest, match="without its prompts"):
        recipe_of(read_texts(file))


def test_a1111s_text_is_read() -> None:
    found = recipe(parameters=A1111)
    asked, sampling = found.generation, found.generation.sampling
    assert (asked.prompt, asked.negative_prompt) == ("a (red:1.2) apple, on a table", "fog, \nrain")
    assert (asked.width_px, asked.height_px, asked.clip_skip) == (512, 768, 1)
    assert (asked.prompt_syntax, asked.long_prompt) == (Syntax.A1111, LongPrompt.CHUNK)
    assert (sampling.sampler, sampling.sigma_schedule, sampling.steps) == ("dpmpp_2m", "karras", 20)
    assert (sampling.guidance_scale, sampling.seeds) == (6.5, (4294967295,))
    assert found.model.name == "dreamy_v3"
    assert [(one.name, one.weight) for one in found.loras] == [("glow", 0.8)]
    assert (asked.hires_pass, found.unread) == (HiresPass(scale=2.0, latent_filter=Resampling.BILINEAR), ())


HIRES = (
    ("Hires upscaler: Latent (bicubic)", {"latent_filter": Resampling.BICUBIC}, ""),
    ("Hires upscaler: Lanczos", {"pixel_filter": Resampling.LANCZOS}, ""),
    ("Hires upscaler: None", {"pixel_filter": Resampling.LANCZOS}, ""),
    ("Hires upscaler: R-ESRGAN 4x+", {"pixel_filter": Resampling.LANCZOS}, "R-ESRGAN 4x+"),
)


@pytest.mark.parametrize(("said", "by", "model"), HIRES)
def test_a1111s_second_pass_is_read(said: str, by: dict[str, Any], model: str) -> None:
    text = (
        "an owl\nSteps: 20, Sampler: Euler, CFG scale: 6.5, Seed: 1, Size: 512x768, Denoising strength: 0.4, "
        f'Hires resize: 768x1152, Hires steps: 12, {said}, Hires prompt: "a barn owl, feathers", Hires CFG Scale: 5'
    )
    found = recipe(parameters=text)
    hires = HiresPass(
        size_px=(768, 1152), strength=0.4, steps=12, prompt="a barn owl, feathers", guidance_scale=5.0, **by
    )
    assert (found.generation.hires_pass, found.upscaler, found.unread) == (hires, model, ())
    assert recipe(parameters=text.replace("Hires steps: 12", "Hires steps: 0")).generation.hires_pass == replace(
        hires, steps=None
    )
    with pytest.raises(InvalidRequest, match="another picture"):
        recipe(parameters=text.replace("Hires resize: 768x1152, ", ""))


def test_the_second_pass_that_we_write_is_read_back() -> None:
    second = ResolvedHires(
        width_px=128, height_px=96, filter=Resampling.LANCZOS, of_pixels=True, upscaler_model_id="grow", strength=0.3,
        steps=7, sampler="euler", sigma_schedule="normal", guidance_scale=4.0, eta=None,
    )  # fmt: skip
    text = parameters_of(request(embedded_model(), prompt="an owl", hires_pass=second), 0)
    found = recipe(parameters=text)
    hires = found.generation.hires_pass
    assert hires is not None
    assert (hires.size_px, hires.strength, hires.steps, found.upscaler) == ((128, 96), 0.3, 7, "grow")


def test_the_text_that_we_write_is_read_back() -> None:
    resolved = request(embedded_model(), prompt="a, b: c\nd", negative_prompt="fog", sampler="euler_a", clip_skip=1)
    found = recipe(parameters=parameters_of(resolved, 0)).generation
    assert (found.prompt, found.negative_prompt, found.clip_skip) == ("a, b: c\nd", "fog", 1)
    assert (found.sampling.sampler, found.sampling.steps, found.sampling.seeds) == ("euler_a", 4, resolved.seeds)


def test_an_older_text_of_a1111_has_both_names_in_one() -> None:
    sampling = recipe(parameters="owl\nSteps: 9, Sampler: DPM++ SDE Karras, Seed: 1").generation.sampling
    assert (sampling.sampler, sampling.sigma_schedule) == ("dpmpp_sde", "karras")


def test_a1111s_text_in_a_jpeg_is_read() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", exif=exif)
    assert recipe_of(read_texts(file.getvalue())).model.name == "dreamy_v3"


def test_comfyuis_graph_is_read() -> None:
    found = recipe(prompt=json.dumps(graph()))
    asked, sampling = found.generation, found.generation.sampling
    assert (asked.prompt, asked.negative_prompt, asked.prompt_syntax) == ("an (owl:1.2)", "fog", Syntax.COMFYUI)
    assert (asked.width_px, asked.height_px) == (512, 640)
    assert (sampling.sampler, sampling.sigma_schedule) == ("euler_a", "karras")
    assert (sampling.steps, sampling.guidance_scale, sampling.seeds) == (12, 7.5, (2**63 - 1,))
    assert found.model.name == "dreamy_v3"
    assert [(one.name, one.weight) for one in found.loras] == [("a\\glow.safetensors", 0.5)]
    assert [(one.name, one.original) for one in found.unread] == [("node", "FaceFixer")]


def test_comfyuis_part_of_the_steps_is_read() -> None:
    advanced = {"start_at_step": 2, "end_at_step": 9, "return_with_leftover_noise": "enable", "add_noise": "enable"}
    found = recipe(prompt=json.dumps(graph(**advanced)))
    assert found.generation.sampling.part == StepRange(first_step=2, last_step=9)
    begun = recipe(prompt=json.dumps(graph(end_at_step=9, return_with_leftover_noise="enable")))
    assert begun.generation.sampling.part == StepRange(last_step=9)
    whole = recipe(prompt=json.dumps(graph(start_at_step=0, end_at_step=10_000, return_with_leftover_noise="enable")))
    assert whole.generation.sampling.part == ALL_STEPS
    forced = recipe(prompt=json.dumps(graph(**advanced | {"return_with_leftover_noise": "disable"})))
    assert forced.generation.sampling.part == StepRange(first_step=2)
    assert [(one.name, one.original) for one in forced.unread][:1] == [("last_step", "9")]
    assert "adds no noise" in refused(prompt=json.dumps(graph(add_noise="disable")))


def test_a_graph_of_comfyui_that_names_no_denoising_is_one_from_noise() -> None:
    said = graph(noise_seed=7)
    said["1"]["class_type"] = "KSamplerAdvanced"
    for name in ("denoise", "seed"):
        del said["1"]["inputs"][name]
    assert recipe(prompt=json.dumps(said)).generation.sampling.seeds == (7,)


@pytest.mark.parametrize(("count", "read"), [(63, True), (64, False)])
def test_a_graph_of_comfyui_has_its_model_within_sixty_four_nodes(count: int, read: bool) -> None:
    said = graph(model=["lora-0", 0])
    for at in range(count):
        inputs = {
            "lora_name": f"l{at}",
            "strength_model": 1.0,
            "model": [f"lora-{at + 1}" if at + 1 < count else "6", 0],
        }
        said[f"lora-{at}"] = {"class_type": "LoraLoader", "inputs": inputs}
    said |= {f"other-{at}": {"class_type": f"Other{at:03}", "inputs": {}} for at in range(70)}
    if not read:
        assert "no checkpoint" in refused(prompt=json.dumps(said))
        return
    found = recipe(prompt=json.dumps(said))
    assert (found.model.name, len(found.loras), len(found.unread)) == ("dreamy_v3", count, 64)


def test_invokeais_metadata_are_read() -> None:
    found = recipe(invokeai_metadata=json.dumps(INVOKE))
    asked, sampling = found.generation, found.generation.sampling
    assert (asked.prompt, asked.negative_prompt, asked.width_px) == ("an owl", "fog", 512)
    assert (sampling.sampler, sampling.sigma_schedule, sampling.steps) == ("dpmpp_2m", "karras", 30)
    assert (found.model.name, [(one.name, one.weight) for one in found.loras]) == ("dreamy_v3", [("glow", 0.4)])


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ({}, "says nothing"),
        ({"parameters": "a cat"}, "without its steps"),
        ({"parameters": "a\nSteps: x, Sampler: Euler, Seed: 1"}, "no number"),
        ({"parameters": "a\nSteps: 9, Sampler: Euler, Seed: 1, Denoising strength: 0.5"}, "another picture"),
        ({"prompt": "{"}, "cannot be read"),
        ({"prompt": "[" * 100_000}, "cannot be read"),
        ({"prompt": "{}"}, "0 samplers"),
        ({"prompt": json.dumps(graph(denoise=0.5))}, "another picture"),
        ({"prompt": json.dumps(graph(positive=["1", 0]))}, "no plain text"),
        ({"prompt": json.dumps(graph(model=["1", 0]))}, "no checkpoint"),
        ({"prompt": json.dumps(graph(steps=["9", 0]))}, "a number below"),
        ({"prompt": json.dumps(graph(steps=True))}, "a number below"),
        ({"prompt": json.dumps(graph(seed=2**63))}, "a number below"),
        ({"prompt": json.dumps(graph(cfg=-(2.0**63)))}, "a number below"),
        ({"invokeai_metadata": "{}"}, "do not say enough"),
        ({"invokeai_metadata": json.dumps(INVOKE | {"generation_mode": "img2img"})}, "another picture"),
        ({"parameters": "a" * (TEXT_BYTES + 1)}, "more than"),
    ],
)
def test_what_does_not_say_enough_is_refused(texts: dict[str, str], why: str) -> None:
    assert why in refused(**texts)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1", "KSampler"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(
    st.sampled_from(["deviceops", "prompt", "invokeai_metadata"]),
    st.text(max_size=40)
    | _JSON.map(json.dumps)
    | st.fixed_dictionaries({}, optional=dict.fromkeys(INVOKE, _JSON)).map(json.dumps),
)
def test_any_json_is_read_or_refused(name: str, text: str) -> None:
    read_or_refused({name: text})


@settings(max_examples=40)
@given(st.sampled_from(sorted(graph()["1"]["inputs"])), _JSON)
def test_any_value_in_a_graph_is_read_or_refused(name: str, value: Any) -> None:
    read_or_refused({"prompt": json.dumps(graph(**{name: value}))})


@given(st.text(alphabet='aS:, \n"\\<>lor1.-xteps', max_size=200))
def test_any_parameters_are_read_or_refused(text: str) -> None:
    read_or_refused({"parameters": text})
    read_or_refused({"parameters": f"{text}\nSteps: 1, Sampler: Euler, Seed: 3, {text}"})


@given(st.binary(max_size=200), st.integers(0, 600), st.binary(min_size=1, max_size=4))
def test_any_file_is_read_or_refused(data: bytes, at: int, other: bytes) -> None:
    whole = png(parameters=A1111)
    for file in (data, whole[:at], whole[:at] + other + whole[at + len(other) :]):
        with contextlib.suppress(InvalidRequest):
            read_or_refused(read_texts(file))


def read_or_refused(texts: dict[str, str]) -> None:
    """InvalidRequest alone is a refusal."""
    with contextlib.suppress(InvalidRequest):
        recipe_of(texts)


@pytest.mark.parametrize("unit", ["a: ", 'a:"', " ", ",", "<lora:", "a:b,", '\\"', "Negative prompt:", "\n"])
def test_a_large_text_is_read_in_time_that_grows_with_its_length(unit: str) -> None:
    text = unit * (TEXT_BYTES // len(unit))
    began = time.process_time()
    read_or_refused({"parameters": f"{text}\nSteps: 1, Sampler: Euler, Seed: 3, {text}"})
    assert time.process_time() - began < 2


def test_pictures_compare_by_their_largest_difference() -> None:
    other = PIXELS.copy()
    other[0, 0, 0] ^= 2
    same = compared(PIXELS, PIXELS, 0)
    assert (same.verdict, same.psnr_db, same.different_pixels_ratio) == (Verdict.IDENTICAL, None, 0)
    near = compared(PIXELS, other, 2)
    assert (near.verdict, near.max_difference) == (Verdict.WITHIN_TOLERANCE, 2)
    assert near.different_pixels_ratio == pytest.approx(1 / (16 * 24))
    assert near.psnr_db == pytest.approx(10 * np.log10(255**2 / (4 / PIXELS.size)))
    assert compared(PIXELS, other, 1).verdict is Verdict.DIFFERENT
    assert compared(PIXELS, PIXELS[:8], 255).verdict is Verdict.DIFFERENT


def test_a_graph_is_read_by_numbers_that_are_whole_and_links_that_are_short() -> None:
    for seed, told in ((0, 0), (7, 7), (7.9, 7), (-1, -1)):
        assert recipe(prompt=json.dumps(graph(seed=seed))).generation.sampling.seeds == (told,)
    said = graph(positive=["n" * 64, 0])
    said["n" * 64] = said["2"]
    assert recipe(prompt=json.dumps(said)).generation.prompt == "an (owl:1.2)"
    said = graph(positive=["n" * 65, 0])
    said["n" * 65] = said["2"]
    assert "no plain text" in refused(prompt=json.dumps(said))
    for wrong in (True, "7", ["2", 0], None, 2**63):
        assert "where a number below 2^63 belongs" in refused(prompt=json.dumps(graph(cfg=wrong)))


def test_the_second_of_several_pictures_has_its_own_seed_and_variation() -> None:
    asked = Generation(
        prompt="owl", image_count=3, sampling=Sampling(seed=7, seed_variation=SeedVariation(seed=3, strength=0.5))
    )
    resolved = resolve(asked, embedded_model())
    assert resolved.seed_variation is not None
    for place in range(3):
        file = encode(PIXELS, "image/png", manifest=to_json(manifest_of(resolved, place)))
        found = recipe_of(read_texts(file))
        assert found.original is not None
        assert (found.original.seeds, found.image_count) == ((7 + place,), 3)
        assert found.original.seed_variation is not None
        assert found.original.seed_variation.seeds == resolved.seed_variation.seeds[place : place + 1]


def test_of_a_long_line_of_settings_the_beginning_is_read() -> None:
    plain = "Steps: 20, Sampler: Euler, Seed: 1, "
    for length, read in ((64 * 1024, True), (64 * 1024 + 1, False)):
        end = "Model: m"
        filler = 'Note: "' + "x" * (length - len(plain) - len('Note: "", ') - len(end)) + '", '
        line = plain + filler + end
        assert len(line) == length
        assert recipe_of({"parameters": f"an owl\n{line}"}).model.name == ("m" if read else "")
