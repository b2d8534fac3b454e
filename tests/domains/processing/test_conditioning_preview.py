"""What a preview says of prompts that do not fit, and when no device can read them."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domains.device.settings import DeviceSettings
from domains.errors import ErrorReason, Unavailable
from domains.inference.checks.request import checked
from domains.inference.generation import Generation
from domains.inference.prompts import FieldPrompt, LongPrompt, Prompt, PromptReading, PromptSegment, Syntax
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.memory.blobs.blob import Blob
from domains.processing import conditioning_preview
from domains.processing.conditioning_preview import ConditioningPreviews, effectless, unknown_words
from domains.processing.control_preview import ControlPreviews
from domains.processing.mask_preview import MaskAnalysis
from domains.processing.workers.worker import PromptsRead
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.processing.test_submit import GPU, OTHER, Desk

LONG = PromptReading(
    field="prompt",
    encoder="text_encoder",
    segments=(
        PromptSegment(text="an owl ", weight=1.0, tokens=(), window=0),
        PromptSegment(text="x" * 300, weight=1.0, tokens=(), window=1, truncated=True),
    ),
    token_count=90,
    truncated_token_count=15,
    window_tokens=75,
)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.database.close()


def previews(desk: Desk, lanes: Any = None) -> ConditioningPreviews:
    unused: Any = None
    controls = ControlPreviews(unused, unused)
    return ConditioningPreviews(desk.submissions.generations, unused, controls, lanes or desk.board.lanes, desk.devices)


async def test_without_a_device_that_takes_work_nothing_is_read(desk: Desk) -> None:
    given = checked(Generation(prompt="an owl"))
    desk.devices.set_settings(GPU, DeviceSettings(enabled=False))
    with pytest.raises(Unavailable) as named:
        await previews(desk).of(given, ["cuda:0"])
    desk.devices.set_settings(OTHER, DeviceSettings(enabled=False))
    with pytest.raises(Unavailable) as any_of_them:
        await previews(desk).of(given)
    assert named.value.reason is any_of_them.value.reason is ErrorReason.DEVICE_RECOVERING


@pytest.mark.parametrize(
    ("occupied", "chosen"),
    [({GPU: 2, OTHER: 1}, OTHER), ({GPU: 1, OTHER: 1}, GPU), ({OTHER: 3}, OTHER), ({}, GPU)],
)
async def test_prompts_are_read_where_the_least_is_done_and_wait_for_a_worker_only_where_none_is_ready(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, occupied: dict[str, int], chosen: str
) -> None:
    asked, waited = list[str](), list[str]()

    def lane(device_id: str) -> Any:
        return SimpleNamespace(worker=device_id, occupied=occupied.get(device_id, 0))

    async def ready(device_id: str) -> Any:
        waited.append(device_id)
        return lane(device_id)

    async def answer(worker: str, *_: object) -> PromptsRead:
        asked.append(worker)
        return PromptsRead(readings=())

    monkeypatch.setattr(conditioning_preview, "ask", answer)
    lanes = SimpleNamespace(of=lambda device_id: lane(device_id) if device_id in occupied else None, ready=ready)  # pyright: ignore[reportUnknownLambdaType]
    await previews(desk, lanes).of(checked(Generation(prompt="an owl")))
    assert (asked, waited) == ([chosen], [] if occupied else [chosen])


@pytest.mark.parametrize("long", [LongPrompt.REFUSE, LongPrompt.TRUNCATE])
async def test_a_prompt_that_does_not_fit_is_a_refusal_only_where_it_is_to_be_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, long: LongPrompt
) -> None:
    async def answer(*_: object) -> PromptsRead:
        return PromptsRead(readings=(LONG,))

    monkeypatch.setattr(conditioning_preview, "ask", answer)
    lanes = SimpleNamespace(of=lambda device_id: SimpleNamespace(worker=device_id, occupied=0))  # pyright: ignore[reportUnknownLambdaType]
    found = await previews(desk, lanes).of(checked(Generation(prompt="an owl", long_prompt=long)))
    told = found.refused if long is LongPrompt.REFUSE else found.odd
    other = found.odd if long is LongPrompt.REFUSE else found.refused
    assert found.prompts == (LONG,)
    assert [each.field for each in told] == ["generation.prompt"]
    assert told[0].message.endswith(f"reads 75 of them; left out: '{'x' * 255}…'")
    assert other == ()


def test_words_that_stand_for_nothing_are_told_by_their_fields() -> None:
    def told(text: str, *tokens: str, syntax: Syntax = Syntax.COMFYUI) -> list[str]:
        words = tuple(
            ResolvedTextualInversion(model_id="m", model_sha256="0" * 64, token=token, weight=1.0) for token in tokens
        )
        resolved = request(embedded_model(), prompt=text, textual_inversions=words, prompt_syntax=syntax)
        prompt = FieldPrompt(fields=("prompt",), prompt=Prompt(texts=(text,), syntax=syntax))
        return [one.field.removeprefix("generation.") for one in unknown_words(resolved, [prompt])]

    assert told("an owl") == []
    assert told("an OWL", "owl") == []
    assert told("an owl", "fox", "owl") == ["textual_inversions[0].token"]
    assert told("embedding:owl") == ["prompt"]
    assert told("embedding:owl", "owl") == []
    assert told("embedding:Owl", "embedding:owl") == []
    assert told("embedding:owl", syntax=Syntax.A1111) == []
    assert told("an owl <lora:ink:0.5>", syntax=Syntax.A1111) == ["prompt"]


@pytest.mark.parametrize(("regions", "fields"), [(None, []), (0, ["generation.mask"]), (1, [])])
def test_a_mask_that_makes_nothing_anew_is_told(regions: int | None, fields: list[str]) -> None:
    blob = Blob(id="b", sha256="0" * 64, size_bytes=1, media_type="image/png", create_time_s=0.0)
    mask = None
    if regions is not None:
        figures: dict[str, Any] = {"painted_ratio": 0.0, "edge_density_ratio": 0.0, "width_px": 8, "height_px": 8}
        mask = MaskAnalysis(region_count=regions, blob=blob, **figures)
    assert [one.field for one in effectless(mask)] == fields
