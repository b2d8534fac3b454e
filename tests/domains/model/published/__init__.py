"""Headers of published models, without their weights.

`make.py` builds each model from its published config on torch's `meta` device and writes names and shapes as text;
single files are named by an inverse of diffusers' own conversions, which are then run on them as a check.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
Shapes = dict[str, tuple[int, ...]]


def header(name: str) -> Shapes:
    """Shapes by tensor name of one published model."""
    lines = (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    return dict(pair for line in lines if line and not line.startswith("#") for pair in _tensors(line))


def names() -> list[str]:
    """All headers."""
    return sorted(file.stem for file in FOLDER.glob("*.txt"))


def _tensors(line: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    template, shape, *numbers = line.split(" ")
    edges = tuple(int(edge) for edge in shape.split("x")) if shape != "-" else ()
    for group in numbers or [""]:
        parts = iter(group.split("."))
        yield "".join(next(parts) if piece == "#" else piece for piece in _pieces(template)), edges


def _pieces(template: str) -> Iterator[str]:
    head, *rest = template.split("#")
    yield head
    for piece in rest:
        yield "#"
        yield piece


def text_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The text that `header` reads: a line for all names that differ only in their numbers."""
    import re

    lines: dict[tuple[str, str], list[str]] = {}
    for name, shape in shapes.items():
        template = re.sub(r"\d+", "#", name)
        edges = "x".join(map(str, shape)) or "-"
        lines.setdefault((template, edges), []).append(".".join(re.findall(r"\d+", name)))
    return "".join(
        f"{' '.join(filter(None, (template, edges, *numbers)))}\n" for (template, edges), numbers in lines.items()
    )
