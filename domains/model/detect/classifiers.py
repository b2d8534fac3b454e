"""Classifiers of pictures. Their tensors are alike whatever they classify, so the labels in the config decide the kind."""

from collections.abc import Mapping
from typing import Any

from domains.model.detect.evidence import MAX_KEYS, Detection, Evidence, Part, Source, Subject
from domains.model.families.sign import Tensors
from domains.model.kind import ModelKind

_HEADS = ("classifier.weight", "classifier.1.weight", "classifier.out_proj.weight")
_UNSAFE = {"nsfw", "porn", "hentai", "sexy", "unsafe", "nude", "explicit"}
"""Labels that only a classifier of safety has."""


def classifier(subject: Subject) -> Detection | None:
    """A safety classifier, where the labels say so. None: no classifier, or one of something else."""
    head = next((name for name in _HEADS if len(subject.tensors.get(name, ())) == 2), "")
    labels = _labels(subject.config)
    telling = tuple(label for label in labels if label.lower() in _UNSAFE)
    if not head or not telling or subject.tensors[head][0] != len(labels):
        return None
    kind = ModelKind.SAFETY_CLASSIFIER
    return Detection(
        kind=kind,
        parts=(Part(id="safety_checker", kind=kind, architecture=_class(subject.config)),),
        evidence=(_of_labels(telling), _of_head(head, subject.tensors)),
    )


def _of_labels(telling: tuple[str, ...]) -> Evidence:
    return Evidence(
        kind=ModelKind.SAFETY_CLASSIFIER,
        source=Source.CONFIG,
        expected=len(telling),
        matched=tuple(f"id2label: {label}" for label in telling)[:MAX_KEYS],
        decisive=True,
    )


def _of_head(head: str, tensors: Tensors) -> Evidence:
    return Evidence(
        kind=ModelKind.SAFETY_CLASSIFIER,
        source=Source.TENSOR_SHAPES,
        expected=1,
        matched=(f"{head} {tensors[head]}",),
        decisive=True,
    )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("id2label")
    return tuple(str(label) for label in named.values()) if isinstance(named, dict) else ()


def _class(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
