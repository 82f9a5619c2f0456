"""Small changes of a module's source, each of which a test should notice."""

import ast
import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
# What is told to people, and what only measures: another wording or none is no fault of what these modules promise.
_TOLD = {"log", "metrics", "logging"}
_NARROWING = {"where", "limit", "distinct", "with_for_update"}

Change = Callable[[ast.AST], ast.AST | None]


@dataclass(frozen=True)
class Mutant:
    """One change: in which function (empty: at the module's level), at which line, what, and which of the file's."""

    path: str
    function: str
    line: int
    what: str
    number: int

    @property
    def key(self) -> str:
        """Names it as long as its function does not change."""
        return f"{self.path}:{self.function or '<module>'}:{self.what}"


class Mutations:
    """The mutants of one file, of all of it or of some functions."""

    def __init__(self, root: Path, path: str, functions: frozenset[str] = frozenset()) -> None:
        self.path, self._functions = path, functions
        self.source = (root / path).read_text()
        self.tree = ast.parse(self.source)
        self._changes = list(self._found())

    @property
    def hash(self) -> str:
        """Of the source."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    def all(self) -> list[Mutant]:
        """Every mutant; those of one name are numbered."""
        times: dict[str, int] = {}
        made = []
        for number, (node, function, what, _) in enumerate(self._changes):
            name = f"{function}:{what}"
            times[name] = times.get(name, 0) + 1
            suffix = f" ({times[name]})" if times[name] > 1 else ""
            made.append(Mutant(self.path, function, getattr(node, "lineno", 0), what + suffix, number))
        return made

    def changed(self, number: int) -> ast.Module:
        """The module with one change."""
        node, _, _, change = self._changes[number]
        return ast.fix_missing_locations(_Replace(node, change).visit(copy.deepcopy(_Marked(self.tree, node).tree)))

    def _found(self) -> Iterator[tuple[ast.AST, str, str, Change]]:
        yield from self._within(self.tree, "", [])

    def _within(self, node: ast.AST, function: str, above: list[str]) -> Iterator[tuple[ast.AST, str, str, Change]]:
        for child in ast.iter_child_nodes(node):
            if _is_told(child) or isinstance(child, ast.Import | ast.ImportFrom | ast.arg):
                continue
            inner, names = function, above
            if isinstance(child, ast.ClassDef):
                names = [*above, child.name]
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [*above, child.name]
                inner = function or ".".join(names)
                if not self._functions or inner in self._functions:
                    for statement in child.body:
                        yield from self._of(statement, inner)
                        yield from self._within(statement, inner, names)
                continue
            elif isinstance(child, ast.Assert) or (isinstance(child, ast.AnnAssign) and child.value is None):
                continue
            if inner or (not self._functions and not names):
                yield from self._of(child, inner)
            if not isinstance(child, ast.ClassDef) or not function:
                yield from self._within(child, inner, names)

    def _of(self, node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str, str, Change]]:
        if _is_told(node):
            return
        for what, change in changes_of(node, bool(function)):
            short = " ".join(ast.unparse(node).split())
            yield node, function, f"{what}: {short if len(short) < 90 else short[:87] + '...'}", change


def changes_of(node: ast.AST, inside: bool) -> Iterator[tuple[str, Change]]:
    """What may be changed about one node."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            other = _COMPARED[type(operator)]
            yield f"{type(operator).__name__} -> {other.__name__}", _set(("ops", place), other())
    elif isinstance(node, ast.BoolOp):
        yield "and <-> or", _set(("op", None), ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield "without not", lambda found: found.operand  # type: ignore[attr-defined]
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _COMPUTED and not _is_type(node):
        yield "operator", _set(("op", None), _COMPUTED[type(node.op)]())
    elif isinstance(node, ast.Constant) and inside:
        if isinstance(node.value, bool):
            yield "constant", _set(("value", None), not node.value)
        elif isinstance(node.value, int):
            yield "constant", _set(("value", None), node.value + 1)
    elif isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
        yield "not the condition", lambda found: _negated(found)
    elif isinstance(node, ast.Return) and inside and node.value is not None and not _is_none(node.value):
        yield "returns None", _set(("value", None), ast.Constant(None))
    elif inside and _is_a_step(node):
        yield "left out", lambda found: ast.Pass()
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _NARROWING:
        yield f"without {node.func.attr}()", lambda found: found.func.value  # type: ignore[attr-defined]


def code_of(module: CodeType, function: str) -> CodeType:
    """The code of a function (`Class.method`) in a module's; raises KeyError."""
    for name in function.split("."):
        found = [each for each in module.co_consts if isinstance(each, CodeType) and each.co_name == name]
        if not found:
            raise KeyError(function)
        module = found[-1]
    return module


class _Marked:
    """Marks a node, so that it is found in a copy of its tree."""

    def __init__(self, tree: ast.Module, node: ast.AST) -> None:
        for each in ast.walk(tree):
            if hasattr(each, "_marked"):
                del each._marked
        node._marked = True  # type: ignore[attr-defined]
        self.tree = tree


class _Replace(ast.NodeTransformer):
    def __init__(self, node: ast.AST, change: Change) -> None:
        self._change = change

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if getattr(node, "_marked", False):
            found = self._change(node)
            assert found is not None
            return ast.copy_location(found, node)
        return super().generic_visit(node)


def _set(place: tuple[str, int | None], value: object) -> Change:
    def change(node: ast.AST) -> ast.AST:
        name, at = place
        if at is None:
            setattr(node, name, value)
        else:
            getattr(node, name)[at] = value
        return node

    return change


def _negated(node: ast.AST) -> ast.AST:
    node.test = ast.UnaryOp(ast.Not(), node.test)  # type: ignore[attr-defined]
    return node


def _is_told(node: ast.AST) -> bool:
    """A docstring, a log line, a count of the metrics, the text of an exception, a type."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == "msg" for each in node.targets):
        return True
    call = node.value if isinstance(node, ast.Expr) else node
    while isinstance(call, ast.Call | ast.Attribute):
        call = call.func if isinstance(call, ast.Call) else call.value
    return isinstance(call, ast.Name) and call.id in _TOLD


def _is_a_step(node: ast.AST) -> bool:
    """A statement that does something and binds nothing."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call | ast.Await)
    return isinstance(node, ast.Raise | ast.Continue | ast.Break)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_type(node: ast.BinOp | ast.AugAssign) -> bool:
    """`A | None`, which only annotations have."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.BitOr):
        return False
    return _is_none(node.left) or _is_none(node.right)
