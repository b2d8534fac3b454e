"""The parts of A1111's syntax that change with the steps or compose prompts: found here, computed nowhere yet."""

import re
from collections.abc import Iterator

from domains.inference.prompts.segment import NUMBER

_AND = re.compile(r"\bAND\b")
_MARK = re.compile(r"\\.|[\[\]|:]", re.DOTALL)
_STEP = re.compile(rf"\s*+{NUMBER}\s*+")


def scheduled(text: str) -> tuple[str, ...]:
    """The names of such parts in a text, each once. Empty: there are none."""
    return tuple(dict.fromkeys([*(["AND"] if _AND.search(text) else []), *_in_brackets(text)]))


def _in_brackets(text: str) -> Iterator[str]:
    """One name for each square bracket that holds alternatives, or ends with a colon and a step."""
    colons: list[int | None] = []
    """The last colon of each open bracket."""
    bars: list[bool] = []
    """Whether each of them holds a bar."""
    for mark in _MARK.finditer(text):
        match mark[0]:
            case "[":
                colons.append(None)
                bars.append(False)
            case "|" if bars:
                bars[-1] = True
            case ":" if colons:
                colons[-1] = mark.end()
            case "]" if colons:
                colon, bar = colons.pop(), bars.pop()
                if bar:
                    yield "[a|b]"
                elif colon is not None and _STEP.fullmatch(text, colon, mark.start()):
                    yield "[a:b:0.5]"
            case _:
                pass
