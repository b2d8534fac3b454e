"""The one-node faults of a source file. Texts, annotations, docstrings and the lengths of zip are left as they are."""

import ast
import copy
import re
from collections.abc import Iterator

import msgspec

_COMPARES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}

_REFUSAL = re.compile(r"\bViolation\(|\bwrong\b|\b_?check_\w+\(|\.check\(|\.there\(|\busable\(|\brefus")
"""What a statement names that notes a violation, or calls a check that raises."""


class Fault(msgspec.Struct, frozen=True):
    """A file with one fault."""

    line: int
    told: str
    """The statement or expression before and after, in one line."""
    source: str
    """The whole file."""
    guards: bool = False
    """Whether the fault is in a check that refuses something: its condition, its call, or what it raises."""


def faults(source: str) -> list[Fault]:
    """Every fault of a file, in the order of its nodes."""
    tree = ast.parse(source)
    found: list[Fault] = []
    guarding = _guarding(tree)
    for parent in _within(tree):
        for field, old in ast.iter_fields(parent):
            for index, node in enumerate(old if isinstance(old, list) else [old]):
                if isinstance(node, ast.AST) and not _is_left_alone(parent, field):
                    for new in _changed(node):
                        _put(parent, field, index, new)
                        told = f"{_told(node)}  →  {_told(new)}"
                        line = getattr(node, "lineno", getattr(parent, "lineno", 0))
                        found.append(Fault(line, told, ast.unparse(tree), id(node) in guarding))
                        _put(parent, field, index, node)
    return found


def _guarding(tree: ast.AST) -> set[int]:
    """The nodes of all refusals: what raises or notes a violation, and the conditions on which it does."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if _refuses(node):
            found.add(id(node))
        elif isinstance(node, ast.If) and any(_refuses(each) for each in node.body):
            found |= {id(node), *(id(each) for each in ast.walk(node.test))}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and isinstance(node.body[-1], ast.Raise):
            # What comes before lets some callers through.
            lets_in = (each.test for each in node.body if isinstance(each, ast.If))
            found |= {id(each) for test in lets_in for each in ast.walk(test)}
    return found


def _refuses(node: ast.AST) -> bool:
    match node:
        case ast.Raise():
            return True
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Return():
            return _REFUSAL.search(ast.unparse(node)) is not None
        case _:
            return False


def _within(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations and what is imported for types alone."""
    yield tree
    for field, value in ast.iter_fields(tree):
        if not _is_left_alone(tree, field):
            for node in value if isinstance(value, list) else [value]:
                if isinstance(node, ast.AST):
                    yield from _within(node)


def _is_left_alone(parent: ast.AST, field: str) -> bool:
    if isinstance(parent, ast.Call) and ast.unparse(parent.func) == "zip":
        # `strict` is an assertion, which turns nothing without an error elsewhere.
        return field == "keywords"
    return field in ("annotation", "returns", "decorator_list", "bases", "keywords" if _is_class(parent) else "")


def _is_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef)


def _put(parent: ast.AST, field: str, index: int, node: ast.AST) -> None:
    value = getattr(parent, field)
    if isinstance(value, list):
        value[index] = node
    else:
        setattr(parent, field, node)


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """The node with each fault that it can have."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARES:
            yield ast.Compare(node.left, [_COMPARES[type(op)]()], node.comparators)
        case ast.BinOp(op=op) if type(op) in _OPERATORS and not isinstance(node.left, ast.JoinedStr):
            yield ast.BinOp(node.left, _OPERATORS[type(op)](), node.right)
        case ast.BoolOp(op=op):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.If() | ast.IfExp() | ast.While() if not _turns_itself(node.test):
            turned = copy.copy(node)
            turned.test = ast.UnaryOp(ast.Not(), node.test)
            yield turned
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete() | ast.Raise():
            yield ast.Pass()
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case _:
            return


def _turns_itself(test: ast.expr) -> bool:
    """Whether a fault of the condition alone turns it, so that the statement needs none, or it is about types alone."""
    match test:
        case ast.Name("TYPE_CHECKING"):
            return True
        case ast.Compare(ops=[ast.Is() | ast.IsNot() | ast.In() | ast.NotIn() | ast.Eq() | ast.NotEq()]):
            return True
        case ast.UnaryOp(op=ast.Not()):
            return True
        case _:
            return False


def _told(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node)).splitlines()[0][:90]
