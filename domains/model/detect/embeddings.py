"""Words learned by textual inversion: one matrix of vectors for each text encoder."""

from collections.abc import Mapping

from domains.model.detect.evidence import Detection, Evidence, Part, Source
from domains.model.families.sign import Shape, Tensors
from domains.model.kind import ModelKind

_MAX_VECTORS = 75
"""Tokens of a prompt that CLIP reads besides start and end."""
_OF_ENCODERS: Mapping[frozenset[str], tuple[Mapping[str, int], tuple[str, ...]]] = {
    # The encoders of these families are the same, and so is what they read.
    frozenset({"clip_l", "clip_g"}): ({"clip_l": 768, "clip_g": 1280}, ("sdxl", "sd3")),
    frozenset({"clip_l"}): ({"clip_l": 768}, ("sd1", "flux1")),
    frozenset({"clip_g"}): ({"clip_g": 1280}, ("sdxl_refiner",)),
    frozenset({"clip_l", "clip_g", "t5xxl"}): ({"clip_l": 768, "clip_g": 1280, "t5xxl": 4096}, ("sd3",)),
    frozenset({"clip_l", "t5"}): ({"clip_l": 768, "t5": 4096}, ("flux1",)),
}
"""Tensor names → width of each, and the families."""
_NO_WORDS = frozenset({"emb_params", "string_to_param.*", "clip_l", "clip_g", "t5xxl", "t5"})
"""Names of tensors in A1111's format, which say nothing. Diffusers names the tensor as the word."""
_OF_WIDTH = {768: ("sd1",), 1024: ("sd2",)}
"""Width of the family's only text encoder."""


def textual_inversion(tensors: Tensors) -> Detection | None:
    """The learned words that these tensors are. None: they are something else."""
    if not tensors or not all(_vectors(shape) for shape in tensors.values()):
        return None
    widths, families = _OF_ENCODERS.get(frozenset(tensors), ({}, ()))
    if not widths:
        families = _OF_WIDTH.get(next(iter(tensors.values()))[-1], ()) if len(tensors) == 1 else ()
    elif any(tensors[name][-1] != width for name, width in widths.items()):
        return None
    return _detection(tensors, families) if families else None


def _vectors(shape: Shape) -> int:
    """Number of vectors of a tensor; 0: it does not belong to an embedding."""
    rows = shape[0] if len(shape) == 2 else 1 if len(shape) == 1 else 0
    return rows if rows <= _MAX_VECTORS else 0


def _detection(tensors: Tensors, families: tuple[str, ...]) -> Detection:
    kind, family = ModelKind.TEXTUAL_INVERSION, families[0]
    shown = tuple(f"{name} {shape}" for name, shape in tensors.items())
    count = max(_vectors(shape) for shape in tensors.values())
    return Detection(
        kind=kind,
        family=family,
        compatible=families,
        parts=(Part(id="embedding", kind=kind),),
        token="".join(tensors) if len(tensors) == 1 and not _NO_WORDS & set(tensors) else "",
        evidence=(
            Evidence(
                family=family,
                kind=kind,
                component="embedding",
                source=Source.TENSOR_SHAPES,
                expected=len(shown),
                matched=shown,
                decisive=True,
            ),
        ),
        notes=(f"{count} vectors a text encoder",),
    )
