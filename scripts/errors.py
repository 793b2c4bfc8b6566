"""Writes docs/errors.md: every error class and code of both packages, the wire's error codes, and the exit codes.

`python -m scripts.errors` writes it (`make errors`). It reads the sources without importing them: class definitions,
the `code="…"` of each call of an error class, and the docstrings of enumeration members.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCUMENT", "ROOT", "exit_codes", "main", "rendered"]

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "errors.md"
_PACKAGES = ("broker", "consumer")
_ROOT_CLASS = "CodedError"
_EXIT_CODES = {"acm": ("broker", "AcmExitCode"), "acm-agent": ("consumer", "AgentExitCode")}
_HEAD = """\
# Errors

<!-- Written by `make errors`. Do not edit: change the sources and run it again. -->

Every error is an exception with one sentence for the user (its text) and a `code` for programs. The codes are stable;
the sentences may change. A class has a default code, and a raise may give a more specific one.
"""


@dataclass(frozen=True)
class _ErrorClass:
    name: str
    base: str
    code: str
    meaning: str
    module: str


@dataclass(frozen=True, order=True)
class _RaisedCode:
    code: str
    error: str
    sentence: str
    module: str


def rendered(root: Path = ROOT) -> str:
    """Return the document for the sources below a root, as Markdown."""
    modules = {package: dict(_modules(root, package)) for package in _PACKAGES}
    classes = _error_classes({name: tree for trees in modules.values() for name, tree in trees.items()})
    sections = [_HEAD, *_wire_and_exit_codes(root)]
    for package, trees in modules.items():
        public = [it for it in classes.values() if it.module in trees and not it.name.startswith("_")]
        raised = sorted({code for name, tree in trees.items() for code in _raised_codes(name, tree, classes)})
        sections += [
            f"## Errors of `{package}`\n",
            "### Classes\n",
            _table(
                ("code", "error", "meaning", "module"),
                [
                    (f"`{it.code}`", f"`{it.name}` ({it.base})", it.meaning, f"`{it.module}`")
                    for it in sorted(public, key=lambda it: it.name)
                ],
            ),
            "### Specific codes\n",
            _table(
                ("code", "error", "sentence", "module"),
                [(f"`{it.code}`", f"`{it.error}`", it.sentence, f"`{it.module}`") for it in raised],
            ),
        ]
    return "\n".join(sections)


def _modules(root: Path, package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((root / package).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _error_classes(trees: dict[str, ast.Module]) -> dict[tuple[str, str], _ErrorClass]:
    """Return the subclasses of CodedError by module and name; those with a leading underscore too."""
    found: dict[tuple[str, str], _ErrorClass] = {}
    waiting = {
        (module, node.name): node
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    while waiting:
        ready = {
            key: base
            for key, node in waiting.items()
            if (base := _error_base(key[0], node, trees, found)) is not None or node.name == _ROOT_CLASS
        }
        if not ready:
            return found
        for (module, name), base in ready.items():
            node = waiting.pop((module, name))
            inherited = base.code if base else ""
            meaning = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            found[module, name] = _ErrorClass(
                name, base.name if base else "Exception", _class_code(node) or inherited, meaning, module
            )
    return found


def _error_base(
    module: str, node: ast.ClassDef, trees: dict[str, ast.Module], found: dict[tuple[str, str], _ErrorClass]
) -> _ErrorClass | None:
    for base in node.bases:
        resolved = _resolved(module, base, trees[module], found)
        if resolved is not None:
            return resolved
    return None


def _resolved(
    module: str, node: ast.expr, tree: ast.Module, found: dict[tuple[str, str], _ErrorClass]
) -> _ErrorClass | None:
    """Return the error class that a name in a module stands for: defined in it, or imported by `from … import`."""
    if not isinstance(node, ast.Name):
        return None
    if (module, node.id) in found:
        return found[module, node.id]
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and statement.module is not None:
            for alias in statement.names:
                if (alias.asname or alias.name) == node.id:
                    return found.get((statement.module, alias.name))
    return None


def _class_code(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str() as code)):
                return code
            case ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant(value=str() as code)):
                return code
    return None


def _raised_codes(module: str, tree: ast.Module, classes: dict[tuple[str, str], _ErrorClass]) -> Iterator[_RaisedCode]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        error = _resolved(module, node.func, tree, classes)
        if error is None:
            continue
        for keyword in node.keywords:
            if keyword.arg == "code":
                sentence = _template(node.args[0]) if node.args else ""
                for constant in ast.walk(keyword.value):
                    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                        yield _RaisedCode(constant.value, error.name, sentence, module)


def _template(node: ast.expr) -> str:
    """Return a sentence as written in the source, with the names of its values in braces."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=values):
            return "".join(map(_template, values))
        case ast.FormattedValue(value=ast.Name(id=name) | ast.Attribute(attr=name)):
            return f"{{{name}}}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _template(left) + _template(right)
        case ast.IfExp(body=body, orelse=orelse):
            return f"{_template(body)} / {_template(orelse)}"
    return "…"


def _wire_and_exit_codes(root: Path) -> Iterator[str]:
    yield "## Codes of error results\n"
    yield "A completed command with the outcome `error` has one of these codes on the wire.\n"
    members = _members(root / "broker" / "contract" / "states.py", "ErrorCode")
    yield _table(("code", "meaning"), [(f"`{value}`", meaning) for value, meaning in members])
    yield "## Exit codes\n"
    for program in _EXIT_CODES:
        members = exit_codes(program, root)
        yield _table((f"`{program}`", "meaning"), [(str(value), meaning) for value, meaning in members])


def exit_codes(program: str, root: Path = ROOT) -> list[tuple[object, str]]:
    """Return the exit codes of `acm` or `acm-agent` for the sources below a root, each with its meaning."""
    package, name = _EXIT_CODES[program]
    return _members(root / package / "cli" / "exit_codes.py", name)


def _members(path: Path, name: str) -> list[tuple[object, str]]:
    """Return the values of an enumeration's members, each with the docstring that follows it."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    members: list[tuple[object, str]] = []
    for statement, following in zip(body, [*body[1:], None], strict=True):
        match statement, following:
            case ast.Assign(value=ast.Constant(value=value)), ast.Expr(value=ast.Constant(value=str() as meaning)):
                members.append((value, " ".join(meaning.split())))
            case ast.Assign(targets=[ast.Name(id=member)]), _:
                raise ValueError(f"{path}: {name}.{member} has no docstring; write what it means on the line after it.")
    return members


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "None.\n"
    cells = [columns, ("---",) * len(columns), *rows]
    lines = ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |" for row in cells]
    return "\n".join(lines).replace("| --- |", "|---|").replace("--- |", "---|").replace("| ---", "|---") + "\n"


def main() -> None:
    """Write docs/errors.md."""
    DOCUMENT.write_text(rendered(), encoding="utf-8")


if __name__ == "__main__":
    main()
