"""Which modules a piece of work uses, and what their source says: digests that comments and formatting do not move.

Plain Python without imports of ours, so that any interpreter can tell the digests of a checkout. A digest is taken of
the syntax tree in a form of our own: that of `ast.dump` changes with Python's version.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
"""The package that is looked at."""
APART = ("__init__", "caches", "config", "errors", "runs", "runs.code", "telemetry")
"""Modules that move no result: what a configuration comes to stands in an origin, the others speak to people."""
UNSAID = ("ctx", "kind", "type_comment", "type_ignores")
"""Fields of syntax that follow from their place, or say how a constant was written."""
DIGITS = 16
"""Of a digest that is written down."""


def code_digests(*roots: str, package: Path = PACKAGE) -> dict[str, str]:
    """Digest of every module of the package that work in these modules may use, by path in the package.

    roots: dotted names below the package, such as `stages.classify`. Imports are followed wherever they stand, inside
    functions too; a module that is only named in a string counts as imported. Those for annotations alone do not.
    """
    digests: dict[str, str] = {}
    left = list(roots)
    while left:
        name = left.pop()
        path = _file(package, name)
        if path is None or name in APART:
            continue
        where = path.relative_to(package).as_posix()
        if where not in digests:
            digest, uses = _read(path, package)
            digests[where] = digest
            left += uses
    return dict(sorted(digests.items()))


def digest_of(digests: dict[str, str]) -> str:
    """Several digests as one."""
    text = "".join(f"{where} {said}\n" for where, said in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def source_digest(text: str) -> str:
    """Digest of what a source does: its syntax without comments, docstrings and formatting; equal on any Python."""
    return _digest(ast.parse(text))


def _digest(tree: ast.AST) -> str:
    spelled: list[str] = []
    _spell(tree, spelled)
    return hashlib.sha256("".join(spelled).encode()).hexdigest()[:DIGITS]


@cache
def _read(path: Path, package: Path) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's file, and the modules of the package that it uses."""
    tree = ast.parse(path.read_bytes())
    return _digest(tree), tuple(sorted(set(_used(tree, path, package))))


def _file(package: Path, name: str) -> Path | None:
    """The file of a dotted name below the package; None when it is no module."""
    path = package.joinpath(*name.split("."))
    module = path.with_suffix(".py")
    if module.is_file():
        return module
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


def _used(tree: ast.AST, path: Path, package: Path) -> Iterator[str]:
    """Dotted names below the package that a module imports or names; some are no modules."""
    here = (package.name, *path.relative_to(package).with_suffix("").parts)
    for node in _evaluated(tree):
        for name in _named(node, here):
            parts = name.split(".")
            if parts[0] == package.name:
                # Importing a module runs the packages above it.
                yield from (".".join(parts[1:end]) for end in range(2, len(parts) + 1))


def _evaluated(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a tree but those for type checkers."""
    left = [tree]
    while left:
        node = left.pop()
        if not _for_checkers(node):
            yield node
            left += ast.iter_child_nodes(node)


def _named(node: ast.AST, here: tuple[str, ...]) -> Iterable[str]:
    """Full dotted names that a node may import. here: the parts of the module's own name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = ".".join(here[: -node.level]) if node.level else ""
        base = ".".join(part for part in (above, node.module) if part)
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{here[0]}."):
        return [node.value]
    return ()


def _spell(value: Any, out: list[str]) -> None:
    """Append a syntax tree as text that is the same on every Python: fields that are not said are left out."""
    if isinstance(value, ast.Constant):
        out.append(f"{type(value.value).__name__} {value.value!a}")
    elif isinstance(value, ast.AST):
        out.append(f"{type(value).__name__}(")
        for name, field in _fields(value):
            if name not in UNSAID and field is not None and field != []:
                out.append(f"{name}=")
                _spell(field, out)
                out.append(";")
        out.append(")")
    elif isinstance(value, list):
        out.append("[")
        for item in value:
            _spell(item, out)
            out.append(",")
        out.append("]")
    else:
        out.append(ascii(value))


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for name, field in ast.iter_fields(node):
        if isinstance(node, ast.JoinedStr) and name == "values":
            yield name, _joined(field)
        elif isinstance(node, ast.FormattedValue) and name == "format_spec" and field is not None:
            yield name, _joined(field.values)
        elif isinstance(field, list) and name in ("body", "orelse", "finalbody"):
            yield name, [statement for statement in field if not _idle(statement)]
        else:
            yield name, field


def _joined(parts: list[ast.expr]) -> list[ast.expr]:
    """Parts of an f-string with neighbouring constants in one; Pythons differ in where they cut them."""
    merged: list[ast.expr] = []
    for part in parts:
        if isinstance(part, ast.Constant) and merged and isinstance(before := merged[-1], ast.Constant):
            merged[-1] = ast.Constant(str(before.value) + str(part.value))
        elif not isinstance(part, ast.Constant) or part.value:
            merged.append(part)
    return merged


def _idle(statement: ast.AST) -> bool:
    """Whether a statement does nothing: a docstring, `...`, `pass`, imports for annotations alone."""
    quoted = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return quoted or isinstance(statement, ast.Pass) or _for_checkers(statement)


def _for_checkers(node: ast.AST) -> bool:
    """Whether only type checkers look at a statement: `if TYPE_CHECKING:` without an `else`."""
    if not isinstance(node, ast.If) or node.orelse:
        return False
    return "TYPE_CHECKING" in (getattr(node.test, "id", None), getattr(node.test, "attr", None))
