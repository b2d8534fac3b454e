"""PreviewConditioning: how a generation's inputs are read, without a denoiser."""

from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from deviceops.common.v1 import error_pb2, image_pb2, job_event_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.model.v1 import model_service_pb2
from domains.imaging import decode, encode
from tests.server import asking
from tests.server.harness import RunningServer

SENT = image_pb2.ImageInput(data=encode(np.zeros((64, 64, 3), np.uint8), "image/png"))
LONG = "an owl on a branch, " * 30
A1111 = generation_pb2.PROMPT_SYNTAX_A1111


def preview(
    server: RunningServer, devices: job_event_pb2.DeviceSelector | None = None, **fields: Any
) -> inference_service_pb2.PreviewConditioningResponse:
    request = inference_service_pb2.PreviewConditioningRequest(
        generation=generation_pb2.Generation(**fields), devices=devices
    )
    return server.inference.PreviewConditioning(request, timeout=asking.CALL_S)


def test_a_preview_tells_weights_and_tokens_and_loads_nothing(server: RunningServer) -> None:
    everything = model_service_pb2.UnloadModelRequest(all=model_service_pb2.EveryLoadedModel())
    server.model.UnloadModel(everything, timeout=asking.CALL_S)
    told = preview(server, prompt="a (red:1.3) apple", negative_prompt="fog", prompt_syntax=A1111)
    assert [(one.field, one.encoder) for one in told.prompts] == [
        ("prompt", "text_encoder"),
        ("negative_prompt", "text_encoder"),
    ]
    assert [(one.text, one.weight, one.window) for one in told.prompts[0].segments] == [
        ("a ", 1.0, 0),
        ("red", 1.3, 0),
        (" apple", 1.0, 0),
    ]
    assert told.prompts[0].token_count == sum(len(one.tokens) for one in told.prompts[0].segments) >= 3
    assert told.prompts[0].window_tokens == 75
    assert not told.findings
    assert not server.model.ListLoadedModels(model_service_pb2.ListLoadedModelsRequest()).loaded_models


def test_a_negative_prompt_is_not_read_where_guidance_is_off(server: RunningServer) -> None:
    told = preview(
        server, prompt="owl", negative_prompt="fog", sampling=sampling_pb2.Sampling(guidance_scale=1.0, steps=100000)
    )
    assert [one.field for one in told.prompts] == ["prompt"]


@pytest.mark.parametrize(
    ("long", "severity"),
    [
        (generation_pb2.LONG_PROMPT_TRUNCATE, error_pb2.SEVERITY_WARNING),
        (generation_pb2.LONG_PROMPT_REFUSE, error_pb2.SEVERITY_ERROR),
        (generation_pb2.LONG_PROMPT_CHUNK, None),
    ],
)
def test_what_is_cut_is_told(server: RunningServer, long: generation_pb2.LongPrompt, severity: int | None) -> None:
    told = preview(server, prompt=LONG, long_prompt=long)
    assert [(one.field, one.severity) for one in told.findings] == (
        [] if severity is None else [("generation.prompt", severity)]
    )
    cut = told.prompts[0].truncated_token_count
    assert bool(cut) is (severity is not None)
    assert cut == sum(len(one.tokens) for one in told.prompts[0].segments if one.truncated)


def test_words_that_change_nothing_are_told(server: RunningServer) -> None:
    told = preview(server, prompt="an owl <lora:glow:0.8>")
    assert [one.field for one in told.findings] == ["generation.prompt"]
    assert "<lora:glow:0.8>" in told.findings[0].message
    comfy = preview(server, prompt="embedding:nosuch owl", prompt_syntax=generation_pb2.PROMPT_SYNTAX_COMFYUI)
    assert "embedding:nosuch" in comfy.findings[0].message


@pytest.mark.parametrize("prompt", ["((((a ]] [b", "(" * 5000, "(a:1.1)b" * 3600, "", "BREAK " * 5])
def test_any_brackets_are_read(server: RunningServer, prompt: str) -> None:
    assert preview(server, prompt=prompt, prompt_syntax=A1111).prompts


def sent(pixels: NDArray[np.uint8]) -> image_pb2.ImageInput:
    return image_pb2.ImageInput(data=encode(pixels, "image/png"))


def test_a_mask_is_told_as_it_is_applied(server: RunningServer) -> None:
    levels = np.zeros((64, 72), np.uint8)
    levels[8:16, 8:16] = levels[40:50, 30:50] = 255
    start = conditioning_pb2.InitImage(image=sent(np.zeros((64, 72, 3), np.uint8)))
    mask = conditioning_pb2.InpaintMask(image=sent(levels), blur_px=0)
    told = preview(server, prompt="owl", init_image=start, mask=mask)
    assert (told.mask.region_count, told.mask.painted_ratio) == (2, pytest.approx((64 + 200) / (64 * 72)))
    assert told.mask.edge_density_ratio == pytest.approx((28 + 56) / 264)
    shown = decode(asking.blob(server, told.mask.file.blob_id), max_pixels=64 * 72, channels=1)
    assert np.array_equal(shown, levels)
    mask.invert, mask.image.data = True, encode(np.full((64, 72), 255, np.uint8), "image/png")
    empty = preview(server, prompt="owl", init_image=start, mask=mask)
    assert (empty.mask.region_count, [one.field for one in empty.findings]) == (0, ["generation.mask"])


@pytest.mark.parametrize(
    ("fields", "devices", "reason"),
    [
        ({"prompt": "BREAK " * 40, "prompt_syntax": A1111}, (), "INVALID_FIELD"),
        ({"model_id": "nosuch"}, (), "MODEL_NOT_FOUND"),
        ({"prompt": "owl"}, ("nosuch",), "DEVICE_NOT_FOUND"),
        ({"second_prompt": "owl"}, (), "UNSUPPORTED_COMBINATION"),
        ({"controls": [conditioning_pb2.ControlInput(model_id="nosuch", image=SENT)]}, (), "MODEL_NOT_FOUND"),
        (
            {"textual_inversions": [conditioning_pb2.TextualInversionInput(model_id="nosuch")]},
            (),
            "MODEL_NOT_FOUND",
        ),
    ],
)
def test_what_is_wrong_is_refused_as_a_generation_is(
    server: RunningServer, fields: dict[str, Any], devices: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        preview(server, job_event_pb2.DeviceSelector(device_ids=devices), **fields)
    assert asking.Refusal(refused.value).reason == reason
