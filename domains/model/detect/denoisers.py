"""Denoisers by their tensors, alone in a file or with the other components beside them (a checkpoint)."""

from collections.abc import Mapping

from domains.model.detect.evidence import Detection, Evidence, Part, of_match
from domains.model.detect.network import Network, layout, proven
from domains.model.families import FAMILIES, Family
from domains.model.families.proof import Proof, proofs
from domains.model.families.sign import Match, Tensors, match, must
from domains.model.kind import ModelKind

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""Beginnings of a denoiser's tensors in a single file."""
EMA = "model_ema."
_MAX_NEAR = 3

OF_NO_FAMILY = (
    Network(
        kind=ModelKind.DENOISER,
        architecture="UNet2DConditionModel",
        layouts=(
            layout(
                must("mid_block.resnets.0.conv1.weight", None, None, 3, 3),
                must("conv_in.weight", None, None, 3, 3),
                must("time_embedding.linear_1.weight", None, None),
                must("conv_out.weight", None, None, 3, 3),
                without=("controlnet_cond_embedding.", "controlnet_down_blocks."),
            ),
            layout(
                must("middle_block.0.in_layers.2.weight", None, None, 3, 3),
                must("input_blocks.0.0.weight", None, None, 3, 3),
                must("time_embed.0.weight", None, None),
                must("out.2.weight", None, None, 3, 3),
                without=("input_hint_block.", "zero_convs."),
            ),
        ),
    ),
)
"""Denoisers of no known family."""


def denoiser(tensors: Tensors) -> Detection | None:
    """The denoiser that these tensors are. None: it is not a known denoiser."""
    found = proofs(tensors)
    if len(found) != 1:
        return _of_no_family(tensors)
    proof, family = found[0], FAMILIES[found[0].family]
    part = family.denoiser
    return Detection(
        kind=ModelKind.DENOISER,
        family=family.id,
        variant=proof.variant,
        compatible=(family.id,),
        parts=(Part(id=part.id, kind=part.kind, architecture=part.classes[0]),),
        prediction_type=_prediction(family, tensors),
        evidence=(of_match(proof.match, ModelKind.DENOISER, family.id, part.id), *_flag(proof, tensors)),
    )


def _prediction(family: Family, tensors: Tensors) -> str:
    """What it predicts, where its family always predicts that, or a marker tensor says so. Empty: tensors do not tell."""
    if len(family.prediction_types) == 1:
        return family.prediction_types[0]
    return "v_prediction" if "v_pred" in tensors and "v_prediction" in family.prediction_types else ""


def _flag(proof: Proof, tensors: Tensors) -> tuple[Evidence, ...]:
    if "v_pred" not in tensors:
        return ()
    found = Match(layout="", matched=("v_pred",), missing=(), lacks_decisive=0, unexpected=())
    return (of_match(found, ModelKind.DENOISER, proof.family),)


def _of_no_family(tensors: Tensors) -> Detection | None:
    for network, found in proven(OF_NO_FAMILY, tensors):
        return Detection(
            kind=network.kind,
            parts=(Part(id="unet", kind=network.kind, architecture=network.architecture),),
            evidence=(of_match(found, network.kind, component="unet"), *near_families(tensors)),
        )
    return None


def near_families(tensors: Tensors) -> tuple[Evidence, ...]:
    """Families that share tensors with these and are not proven, the nearest first."""
    matches = (
        (family.id, family.denoiser.id, match(layout, tensors))
        for family in FAMILIES.values()
        for layout in family.layouts
    )
    some = sorted((one for one in matches if one[2].matched and not one[2].proven), key=lambda one: -one[2].share)
    return tuple(of_match(found, ModelKind.DENOISER, family, part) for family, part, found in some[:_MAX_NEAR])


def inner(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors under a prefix, without it."""
    return {name[len(prefix) :]: shape for name, shape in tensors.items() if name.startswith(prefix)}


def checkpoint(tensors: Tensors) -> Detection | None:
    """The single file that holds a denoiser under its prefix. None: it holds none."""
    prefix = next((start for start in PREFIXES if any(name.startswith(start) for name in tensors)), None)
    if prefix is None:
        return None
    # Markers of a checkpoint lie beside its components.
    marks = {name: shape for name, shape in tensors.items() if name in ("v_pred", "ztsnr")}
    found = denoiser({**inner(tensors, prefix), **marks})
    if found is None or not found.family:
        return found
    family = FAMILIES[found.family]
    parts = _parts(family, tensors, prefix)
    # The denoiser alone, under its prefix, is no checkpoint.
    if len(parts) == 1:
        return found
    missing = tuple(part.id for part in family.parts if part.has_weights and not part.optional and part.id not in parts)
    return Detection(
        kind=family.kind,
        family=family.id,
        variant=found.variant,
        parts=tuple(parts.values()),
        missing=missing,
        prediction_type=found.prediction_type,
        evidence=found.evidence,
        notes=_ema(tensors),
    )


def _parts(family: Family, tensors: Tensors, prefix: str) -> Mapping[str, Part]:
    """The components that the file holds."""
    found: dict[str, Part] = {}
    for part in family.parts:
        starts = (prefix,) if part.kind is ModelKind.DENOISER else part.prefixes
        names = tuple(name for name in tensors if starts and name.startswith(starts))
        if names:
            architecture = part.classes[0] if part.classes else ""
            found[part.id] = Part(id=part.id, kind=part.kind, architecture=architecture, tensors=names)
    return found


def _ema(tensors: Tensors) -> tuple[str, ...]:
    averaged = sum(name.startswith(EMA) for name in tensors)
    if not averaged:
        return ()
    return (f"it also holds {averaged} averaged tensors ({EMA}*), which belong to no component and are not loaded",)
