"""A network that has a kind of its own, and the search in a table of them."""

from collections.abc import Iterable, Iterator

import msgspec

from domains.model.detect.evidence import Detection, Part, of_match
from domains.model.families.sign import Layout, Match, Sign, Tensors, match
from domains.model.kind import ModelKind


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network that its tensors prove."""

    kind: ModelKind
    architecture: str
    """Class of diffusers or transformers, or the usual name."""
    layouts: tuple[Layout, ...]
    families: tuple[str, ...] = ()
    """Families that it can be added to. Empty: it stands by itself, or its tensors do not tell."""
    variant: str = ""
    own: tuple[str, ...] = ()
    """Beginnings of the names of its tensors, in files that hold others, too. Empty: all are its own."""

    @property
    def component(self) -> str:
        """Id of the component that it fills."""
        return COMPONENT_IDS.get(self.kind, str(self.kind))


COMPONENT_IDS = {ModelKind.SAFETY_CLASSIFIER: "safety_checker"}
"""Ids of components that differ from their kind's name."""


def layout(*signs: Sign, without: tuple[str, ...] = (), name: str = "published") -> Layout:
    """A layout from its signs."""
    return Layout(name=name, signs=signs, without=without)


def proven(table: Iterable[Network], tensors: Tensors) -> Iterator[tuple[Network, Match]]:
    """The networks of the table that the tensors prove."""
    for network in table:
        for one in network.layouts:
            # Nearly all comparisons end here.
            if one.signs[0].key in tensors and (found := match(one, tensors)).proven:
                yield network, found
                break


def near(table: Iterable[Network], tensors: Tensors) -> Iterator[tuple[Network, Match]]:
    """The networks that share a tensor with these and are not proven."""
    for network in table:
        matches = [match(one, tensors) for one in network.layouts]
        best = max(matches, key=lambda found: found.share)
        if best.matched and not any(found.proven for found in matches):
            yield network, best


def detection(network: Network, found: Match, tensors: Tensors, start: str = "") -> Detection:
    """The answer where a network is proven. `start`: what the file's names have before those of `tensors`."""
    family = network.families[0] if len(network.families) == 1 else ""
    own = tuple(f"{start}{name}" for name in tensors if name.startswith(network.own)) if network.own else None
    return Detection(
        kind=network.kind,
        family=family,
        variant=network.variant,
        compatible=network.families,
        parts=(Part(id=network.component, kind=network.kind, architecture=network.architecture, tensors=own),),
        evidence=(of_match(found, network.kind, family, network.component),),
    )
