"""The weights of A1111's syntax: `(words)` is 1.1, `(words:1.3)` is 1.3, `[words]` is 1/1.1, `\\(` is a bracket.

Weights of nested brackets multiply. A bracket that is never closed holds to the end; one that was never opened is text; a
backslash before anything else vanishes. Source: the behaviour that AUTOMATIC1111/stable-diffusion-webui documents
("Features: Attention/emphasis"), tried against its published examples.
"""

import re

from domains.inference.prompts.segment import BRACKET_WEIGHT, NUMBER, Segment, merged

_PIECE = re.compile(
    rf"\\(?P<literal>[()\[\]\\]?)|(?P<round>\()|(?P<square>\[)|:\s*+(?P<weight>{NUMBER})\s*+\)|(?P<end>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|:)"
)


class _Brackets:
    """Nested brackets of one kind. Round and square ones may overlap, so each kind is counted by itself."""

    def __init__(self) -> None:
        self.parents = [0]
        self.factors = [1.0]
        self.open: list[int] = [0]

    def begin(self, factor: float) -> None:
        """Open one; `factor` counts unless its end says another."""
        self.parents.append(self.open[-1])
        self.factors.append(factor)
        self.open.append(len(self.factors) - 1)

    @property
    def inside(self) -> bool:
        """Whether one is open."""
        return len(self.open) > 1

    def end(self, factor: float | None = None) -> None:
        """Close the last one."""
        closed = self.open.pop()
        if factor is not None:
            self.factors[closed] = factor

    def weights(self) -> list[float]:
        """The product of all factors round each bracket's content; one pass, since a bracket comes after its parent."""
        weights = [1.0]
        for parent, factor in zip(self.parents[1:], self.factors[1:], strict=True):
            weights.append(weights[parent] * factor)
        return weights


def a1111_segments(text: str) -> tuple[Segment, ...]:
    """The segments of a text, in order."""
    rounds, squares = _Brackets(), _Brackets()
    found: list[tuple[str, int, int]] = []
    for piece in _PIECE.finditer(text):
        said = piece[0]
        if piece["round"]:
            rounds.begin(BRACKET_WEIGHT)
        elif piece["square"]:
            squares.begin(1 / BRACKET_WEIGHT)
        elif piece["weight"] is not None and rounds.inside:
            rounds.end(float(piece["weight"]))
        elif said == ")" and rounds.inside:
            rounds.end()
        elif said == "]" and squares.inside:
            squares.end()
        else:
            literal = piece["literal"]
            found.append((said if literal is None else literal, rounds.open[-1], squares.open[-1]))
    by_round, by_square = rounds.weights(), squares.weights()
    return merged([Segment(said, by_round[at] * by_square[of]) for said, at, of in found])
