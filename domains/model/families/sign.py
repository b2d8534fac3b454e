"""What proves a network from the names and shapes of its tensors."""

from collections.abc import Mapping

import msgspec

Shape = tuple[int, ...]
Tensors = Mapping[str, Shape]
"""Shapes by tensor name."""


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that a network has."""

    key: str
    shape: tuple[int | None, ...] | None = None
    """Its shape; None within it: any length. None: any shape."""
    decisive: bool = True
    """Whether a network without it is another one. False: published models have it so, others may differ."""

    def holds(self, tensors: Tensors) -> bool:
        """Whether the tensor is there, with this shape."""
        found = tensors.get(self.key)
        if found is None or self.shape is None:
            return found is not None
        return len(found) == len(self.shape) and all(
            wants in (None, has) for wants, has in zip(self.shape, found, strict=True)
        )

    def text(self) -> str:
        """The sign in a message: `conv_in.weight (*, 4, 3, 3)`."""
        edges = ", ".join("*" if edge is None else str(edge) for edge in self.shape or ())
        return self.key if self.shape is None else f"{self.key} ({edges})"


def must(key: str, *shape: int | None) -> Sign:
    """A tensor without which it is another network."""
    return Sign(key=key, shape=shape or None)


def usual(key: str, *shape: int | None) -> Sign:
    """A tensor as published models have it."""
    return Sign(key=key, shape=shape or None, decisive=False)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which programs name the tensors of a network."""

    name: str
    """`diffusers`: names of the library's modules. `original`: names of the authors' own code."""
    signs: tuple[Sign, ...]
    without: tuple[str, ...] = ()
    """Beginnings of tensor names that the network does not have."""


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Which signs of a layout some tensors show."""

    layout: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    """Signs that are not there, the decisive ones first."""
    lacks_decisive: int
    """How many of them are decisive."""
    unexpected: tuple[str, ...]
    """Tensors that the network does not have, one for each forbidden beginning."""

    @property
    def proven(self) -> bool:
        """Whether every decisive sign is there and nothing is unexpected."""
        return not self.lacks_decisive and not self.unexpected

    @property
    def share(self) -> float:
        """Share of the signs that are there."""
        total = len(self.matched) + len(self.missing)
        return len(self.matched) / total if total else 0.0


def match(layout: Layout, tensors: Tensors, also: tuple[Sign, ...] = ()) -> Match:
    """Compare tensors with a layout; `also`: signs of a variant, which take the place of those with the same key."""
    taken = {sign.key for sign in also}
    signs = (*also, *(sign for sign in layout.signs if sign.key not in taken))
    there = {sign.key for sign in signs if sign.holds(tensors)}
    lacking = sorted((sign for sign in signs if sign.key not in there), key=lambda sign: not sign.decisive)
    return Match(
        layout=layout.name,
        matched=tuple(sign.key for sign in signs if sign.key in there),
        missing=tuple(sign.text() for sign in lacking),
        lacks_decisive=sum(sign.decisive for sign in lacking),
        unexpected=tuple(
            found for start in layout.without if (found := next((key for key in tensors if key.startswith(start)), ""))
        ),
    )
