"""Tells what a file of weights is, from its header and the config beside it. What nothing proves is reported as unknown."""

import re

from msgspec.structs import replace

from domains.model.detect.classifiers import classifier
from domains.model.detect.controls import CONTROLNETS, IMAGE_PROMPT_ADAPTERS, T2I_ADAPTERS
from domains.model.detect.denoisers import EMA, checkpoint, denoiser, near_families
from domains.model.detect.embeddings import textual_inversion
from domains.model.detect.encoders import ENCODERS
from domains.model.detect.evidence import Detection, Evidence, Source, Subject, of_match
from domains.model.detect.header_words import Words, words
from domains.model.detect.loras import lora
from domains.model.detect.network import detection, near, proven
from domains.model.detect.pictures import PICTURE_NETWORKS
from domains.model.detect.vaes import VAES
from domains.model.families.sign import Tensors
from domains.model.kind import ModelKind

_ADAPTERS = (*IMAGE_PROMPT_ADAPTERS, *CONTROLNETS, *T2I_ADAPTERS)
_NETWORKS = (*_ADAPTERS, *VAES, *ENCODERS, *PICTURE_NETWORKS)
_MAX_NEAR = 3

_WRAPPER = re.compile(
    r"(?:control_model|first_stage_model|vae|module|net_g|model\.control_model"
    r"|text_encoders\.\w+\.transformer|cond_stage_model\.transformer|conditioner\.embedders\.0\.transformer)\."
)
"""Prefixes under which a program stores one component alone."""


def detect(subject: Subject) -> Detection:
    """What the tensors are. Nothing recognised: the default, with what came nearest as evidence."""
    tensors = {name: shape for name, shape in subject.tensors.items() if not name.startswith(EMA)} or subject.tensors
    found = (
        _network(tensors)
        or lora(tensors)
        or checkpoint(subject.tensors)
        or denoiser(tensors)
        or classifier(subject)
        or _unwrapped(tensors)
        or textual_inversion(tensors)
        or Detection(evidence=_near(tensors))
    )
    return _with_words(found, words(subject.metadata))


def _network(tensors: Tensors, start: str = "") -> Detection | None:
    found = [detection(network, one, tensors, start) for network, one in proven(_NETWORKS, tensors)]
    return found[0] if len(found) == 1 else None


def _unwrapped(tensors: Tensors) -> Detection | None:
    """One component, stored under a prefix of its own."""
    starts = {found[0] if (found := _WRAPPER.match(name)) else "" for name in tensors}
    if len(starts) != 1 or not (start := starts.pop()):
        return None
    bare = {name[len(start) :]: shape for name, shape in tensors.items()}
    return _network(bare, start) or denoiser(bare)


def _near(tensors: Tensors) -> tuple[Evidence, ...]:
    """What the tensors resemble, the nearest first."""
    alike = sorted(near(_NETWORKS, tensors), key=lambda one: -one[1].share)
    kinds = [of_match(found, network.kind, component=network.component) for network, found in alike[:_MAX_NEAR]]
    both = sorted((*near_families(tensors), *kinds), key=lambda one: one.matched_count / one.expected, reverse=True)
    return tuple(both[:_MAX_NEAR])


_NAMES_A_BASE = (ModelKind.LORA, ModelKind.TEXTUAL_INVERSION, ModelKind.VAE, ModelKind.CONTROLNET)
"""Kinds whose metadata may name a family that their tensors leave open."""


def _with_words(found: Detection, said: Words) -> Detection:
    """What the tensors prove, completed by what the metadata says where tensors cannot tell."""
    if found.kind is ModelKind.UNKNOWN:
        return replace(found, version=said.version)
    claimed = said.family
    could = claimed in found.compatible or not found.compatible
    takes = bool(claimed) and not found.family and could and found.kind in _NAMES_A_BASE
    wrong = (
        bool(claimed) and bool(found.family or found.compatible) and claimed not in (found.family, *found.compatible)
    )
    evidence = Evidence(
        family=claimed, kind=found.kind, source=Source.METADATA, expected=1, matched=said.keys, decisive=takes
    )
    narrowed = (claimed,) if takes or (claimed in found.compatible and not wrong) else found.compatible
    return replace(
        found,
        family=claimed if takes else found.family,
        compatible=narrowed,
        variant=found.variant or ("" if found.kind is ModelKind.LORA else said.variant),
        prediction_type=found.prediction_type or (said.prediction_type if _predicts(found.kind) else ""),
        version=said.version,
        evidence=(*found.evidence, evidence) if claimed else found.evidence,
        warnings=(*found.warnings, *_contradiction(found, said)) if wrong else found.warnings,
    )


def _predicts(kind: ModelKind) -> bool:
    return kind in (ModelKind.CHECKPOINT, ModelKind.REFINER, ModelKind.DENOISER)


def _contradiction(found: Detection, said: Words) -> tuple[str, ...]:
    proven_family = found.family or " or ".join(found.compatible)
    return (
        f"its metadata says {', '.join(said.keys)}, but its tensors are those of {proven_family}; the tensors count",
    )
