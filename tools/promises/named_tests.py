"""Names of tests, read from their files without importing or running them."""

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CSHARP_TEST = re.compile(r"\[(?:Fact|Theory)\b[^\]]*\]\s*(?:\[[^\]]*\]\s*)*public\s+(?:async\s+)?\S+\s+(\w+)\(")


@cache
def tests_in(file: str) -> dict[str, bool]:
    """Returns each test of a file, by name without parameters, and whether it carries the `gpu` mark.

    `file` is relative to the root. A file that does not exist has no tests.
    """
    path = ROOT / file
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    return dict.fromkeys(_CSHARP_TEST.findall(text), False) if path.suffix == ".cs" else python_tests(text)


def python_tests(text: str) -> dict[str, bool]:
    """Returns the test functions of a module, and whether each carries the `gpu` mark itself or by its module."""
    body = ast.parse(text).body
    marks = [node.value for node in body if isinstance(node, ast.Assign) and _is_named(node, "pytestmark")]
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {
        node.name: _has_gpu_mark([*marks, *node.decorator_list]) for node in functions if node.name.startswith("test_")
    }


def _is_named(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _has_gpu_mark(nodes: Iterable[ast.expr]) -> bool:
    every = (part for node in nodes for part in ast.walk(node))
    return any(isinstance(part, ast.Attribute) and part.attr == "gpu" for part in every)


def exists(test: str) -> bool:
    """Whether `file::name` is a test."""
    file, _, name = test.partition("::")
    return name in tests_in(file)


def needs_gpu(test: str) -> bool:
    """Whether `file::name` carries the `gpu` mark. False for one that does not exist."""
    file, _, name = test.partition("::")
    return tests_in(file).get(name, False)
