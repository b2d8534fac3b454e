"""Tells how the inputs of a generation are read, without a denoiser: prompts through a worker's tokenizers."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from domains.device.device import DeviceState
from domains.device.devices import TAKES_WORK, Devices
from domains.device.record import DeviceView
from domains.errors import ErrorReason, Unavailable, Violation, excerpt
from domains.inference.checks.request import Checked
from domains.inference.generation import ResolvedGeneration
from domains.inference.prompt_plan import prompt_plan
from domains.inference.prompts import FieldPrompt, LongPrompt, PromptReading, Syntax
from domains.processing.control_preview import ControlPreviews, ShownMap
from domains.processing.generation_resolver import GenerationResolver
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.placement import Placement
from domains.processing.mask_preview import MaskAnalysis, MaskPreviews
from domains.processing.workers.ask import ask
from domains.processing.workers.worker import PromptsRead, ReadPromptsOrder, new_order_id

READINGS = 24
"""Most readings in one answer."""


class PreviewedConditioning(msgspec.Struct, frozen=True, kw_only=True):
    """How the inputs of a generation are read."""

    prompts: tuple[PromptReading, ...]
    mask: MaskAnalysis | None
    """None: there is no mask."""
    maps: Sequence[ShownMap]
    """The maps of its controls, in their order."""
    refused: tuple[Violation, ...]
    """Faults for which the generation would be refused."""
    odd: tuple[Violation, ...]
    """Findings for which it would not be refused."""


class ConditioningPreviews:
    """Previews for this server's models and devices."""

    def __init__(
        self,
        generations: GenerationResolver,
        masks: MaskPreviews,
        controls: ControlPreviews,
        lanes: Lanes,
        devices: Devices,
    ) -> None:
        self._masks = masks
        self._controls = controls
        self._generations = generations
        self._lanes = lanes
        self._devices = devices

    async def of(self, given: Checked, device_ids: Sequence[str] = ()) -> PreviewedConditioning:
        """Preview a generation. `device_ids`: where it may be read; empty: anywhere.

        Raises what is wrong with the generation or its model, and DEVICE_RECOVERING while no worker can read it.
        """
        files = await self._generations.read(given)
        _, model, resolved = self._generations.resolved(given, files)
        plan = prompt_plan(resolved)
        order = ReadPromptsOrder(
            order_id=new_order_id("read"),
            model=model,
            prompts=plan.encoded[:READINGS],
            textual_inversions=resolved.textual_inversions,
            words=tuple(files.words),
        )
        lane = await self._lane(device_ids)
        assert lane.worker is not None
        read = (await ask(lane.worker, order, PromptsRead)).readings[:READINGS]
        refuses = resolved.long_prompt is LongPrompt.REFUSE
        long = tuple(_truncated(read))
        mask = None if given.asked.mask is None else await self._masks.of(given.asked.mask, resolved)
        return PreviewedConditioning(
            prompts=read,
            mask=mask,
            maps=await self._controls.of(given.asked, resolved),
            refused=long if refuses else (),
            odd=(*(() if refuses else long), *plan.beyond, *unknown_words(resolved, plan.encoded), *effectless(mask)),
        )

    async def _lane(self, device_ids: Sequence[str]) -> Lane:
        """The lane that has the least to do. Waits for a worker that is still starting, if there is no other."""
        named = frozenset(self._devices.get(name).device.id for name in device_ids)
        placement = Placement(front=None, device_ids=named)
        able = [view.device.id for view in self._devices.list() if placement.allows(view.device) and _serves(view)]
        if not able:
            message = "no device that may read the prompts takes work now; try again in a few seconds"
            raise Unavailable(message, ErrorReason.DEVICE_RECOVERING)
        ready = [lane for device_id in able if (lane := self._lanes.of(device_id)) is not None]
        return min(ready, key=lambda lane: lane.occupied) if ready else await self._lanes.ready(able[0])


def _serves(view: DeviceView) -> bool:
    return view.state is DeviceState.STARTING or view.state in TAKES_WORK


def _truncated(readings: Sequence[PromptReading]) -> Iterator[Violation]:
    """The prompts that do not fit."""
    for one in readings:
        if one.truncated_token_count:
            cut = "".join(segment.text for segment in one.segments if segment.truncated)
            message = (
                f"has {one.token_count} tokens, and {one.encoder} reads {one.token_count - one.truncated_token_count} "
                f"of them; left out: {excerpt(cut)!r}"
            )
            yield Violation(field=f"generation.{one.field}", message=message)


def effectless(mask: MaskAnalysis | None) -> Iterator[Violation]:
    """The finding that a mask leaves the picture as it is. `mask`: None for a generation without one."""
    if mask is not None and not mask.region_count:
        message = "makes no pixel anew: it is black everywhere, or white everywhere and inverted"
        yield Violation(field="generation.mask", message=message)


_EMBEDDING = re.compile(r"\bembedding:([\w.-]{1,255})")
_A1111_LORA = re.compile(r"<(lora|lyco|hypernet):[^<>]{1,255}>")


def unknown_words(resolved: ResolvedGeneration, prompts: Sequence[FieldPrompt]) -> Iterator[Violation]:
    """Findings: learned words that no prompt has, and words that other programs would read as a file's name."""
    texts = {one.fields[at]: text for one in prompts for at, text in enumerate(one.prompt.texts) if text}
    whole = "\n".join(texts.values()).lower()
    for place, word in enumerate(resolved.textual_inversions):
        if word.token.lower() not in whole:
            message = f"no prompt has the word {word.token!r}, so that {word.model_id} changes nothing"
            yield Violation(field=f"generation.textual_inversions[{place}].token", message=message)
    known = {word.token.lower() for word in resolved.textual_inversions}
    for field, text in texts.items():
        for found in _EMBEDDING.finditer(text) if resolved.prompt_syntax is Syntax.COMFYUI else ():
            if found[1].lower() not in known and found[0].lower() not in known:
                message = f"{found[0]!r} is read as text; name the embedding in `textual_inversions`"
                yield Violation(field=f"generation.{field}", message=message)
        if found := _A1111_LORA.search(text):
            message = f"{found[0]!r} is read as text; name the file in `loras`"
            yield Violation(field=f"generation.{field}", message=message)
