"""docs/walk.md: the page that follows one Generate names files and functions that exist."""

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "walk.md").read_text(encoding="utf-8")
_INTRODUCTION, *_PARTS = re.split(r"^## ", _PAGE, flags=re.MULTILINE)
_MOST_FILES = 12
_NOT_FUNCTIONS = {"request_id"}
"""Names in backticks that are fields of the contract."""


def _parts() -> list[tuple[int, str, str]]:
    """The number, the file and the text of each part."""
    found: list[tuple[int, str, str]] = []
    for part in _PARTS:
        head, _, text = part.partition("\n")
        number, _, file = head.partition(". ")
        found.append((int(number), file.strip(), text.strip()))
    return found


def _defined(file: str) -> set[str]:
    tree = ast.parse((_ROOT / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_the_walk_goes_through_at_most_twelve_files_and_meets_each_once():
    numbers, files = [part[0] for part in _parts()], [part[1] for part in _parts()]
    assert numbers == list(range(1, len(files) + 1))
    assert 3 <= len(files) <= _MOST_FILES
    assert len(set(files)) == len(files)


def test_the_walk_begins_at_the_servicer_reaches_the_device_and_comes_back():
    files = [file for _, file, _ in _parts()]
    device = [at for at, file in enumerate(files) if "/on_device/" in file]
    assert files[0] == "server/inference/servicer.py"
    assert device
    assert max(device) < len(files) - 1, "the way back is missing"
    assert files[-1].startswith("server/")


@pytest.mark.parametrize(("file", "text"), [(file, text) for _, file, text in _parts()])
def test_each_part_is_one_paragraph_about_functions_of_its_own_file(file: str, text: str):
    assert (_ROOT / file).is_file()
    assert "\n\n" not in text
    assert ".py" not in text, "a part tells of its own file alone"
    named = set(re.findall(r"`([^`]+)`", text)) - _NOT_FUNCTIONS
    assert named
    assert named <= _defined(file)


def test_no_file_is_named_beside_the_parts():
    assert re.findall(r"[\w/]+\.py", _INTRODUCTION) == ["tests/tools/test_walk.py"]
