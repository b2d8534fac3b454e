"""What ControlNets keep of prompts that no longer count: a network whose prompts change keeps the reading before, too."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from domains.inference.control_types import forwards_of
from domains.inference.controls import ResolvedControl
from domains.inference.generation import ResolvedGeneration
from domains.inference.pass_plan import passes_of
from domains.inference.prompt_plan import PromptPlan, PromptVariant, prompt_plan
from domains.model.families import FAMILIES

_FLOAT32 = 4


class KeptReading(msgspec.Struct, frozen=True, kw_only=True):
    """The largest reading that one ControlNet keeps beside the present one."""

    model_id: str
    """The network whose files tell how wide it reads prompts: the ControlNet, or the model that embeds them for it."""
    tokens: int
    """Of each prompt. One that is chunked can have more, which text encoders tell."""
    prompts: int
    """Prompts and negative ones, those of regions included."""
    pooled: int
    """Those that are read as a whole, too."""
    map_bytes: int = 0
    """Bytes of the shares of regions at each pixel."""


def kept_readings(resolved: ResolvedGeneration) -> Sequence[Sequence[KeptReading]]:
    """For each pass, what its ControlNets keep. Empty: the prompts of its steps are the same."""
    found: list[Sequence[KeptReading]] = []
    for one in passes_of(resolved):
        nets = [control for control in one.resolved.controls if control.weight and not control.t2i_adapter]
        # Maps that are read together share what their network reads of prompts.
        nets = [nets[first] for first, *_ in forwards_of(nets, one.resolved.family)]
        plan = prompt_plan(one.resolved) if nets else None
        # Regions have the size of the first pass in each.
        pixels = resolved.width_px * resolved.height_px
        kept = [] if plan is None else [_kept(control, one.resolved, plan, pixels) for control in nets]
        found.append([reading for reading in kept if reading is not None])
    return found


def _kept(control: ResolvedControl, resolved: ResolvedGeneration, plan: PromptPlan, pixels: int) -> KeptReading | None:
    family = FAMILIES[resolved.family]
    reads = family.reads_negative(resolved.guidance_scale)
    steps = [plan.by_step[step] for step in resolved.counted(control.steps_of)]
    left = [plan.variants[one] for one, after in pairwise(steps) if one != after]
    if not left:
        return None
    most = max(left, key=lambda one: _prompts(one, reads=reads))
    return KeptReading(
        model_id=resolved.model_id if family.embeds_for_controls else control.model_id,
        tokens=family.prompt_tokens + family.clip_tokens,
        prompts=_prompts(most, reads=reads),
        pooled=len(most.positives) * _rows(most, reads=reads),
        map_bytes=pixels * _FLOAT32 * (len(most.regions) + 1) if most.regions else 0,
    )


def _prompts(variant: PromptVariant, *, reads: bool) -> int:
    return (len(variant.positives) + len(variant.regions)) * _rows(variant, reads=reads)


def _rows(variant: PromptVariant, *, reads: bool) -> int:
    """Rows of each prompt: with guidance one without it, too."""
    return 2 if reads and variant.guided else 1
