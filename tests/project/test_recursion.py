"""The product does not recurse over directories: somebody else may have shaped them, and the stack is short."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECURSIVE = frozenset({"rglob", "walk", "fwalk", "rmtree", "copytree", "make_archive", "extractall"})


def test_no_module_uses_a_function_that_recurses_over_directories() -> None:
    """`broker.system.trees` has others; `Path.glob` recurses with `**` only."""
    used = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for package in ("broker", "consumer")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (name := _name(node)) in RECURSIVE or "**" in _pattern(node)
    ]
    assert used == []


def _name(node: ast.AST) -> str:
    """Return the attribute or the imported name."""
    match node:
        case ast.Attribute(attr=name) | ast.alias(name=name):
            return name
    return ""


def _pattern(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Attribute(attr="glob"), args=[ast.Constant(value=str(pattern)), *_]):
            return pattern
    return ""
