"""Documents, examples and plug-ins import only from the two package roots."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = [import_module(name) for name in ("broker", "consumer")]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = [*sorted((ROOT / "examples").rglob("*.py")), *sorted((ROOT / "tests/typing").glob("*.py"))]
DEEP_NAME = re.compile(r"`(?:from )?((?:broker|consumer)(?:\.\w+)+)[`(:]")
MAX_NAMES = 38


def deep_imports(source: str) -> list[str]:
    """Return the names that a program imports from below the two roots, or that the roots do not export."""
    exported = {root.__name__: set(root.__all__) for root in ROOTS}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in exported]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in exported:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name.rpartition(".")[2] not in exported.get(node.module or "", ())]
    return found


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"^(from (?:broker|consumer)\S* import .*)$", document.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", PROGRAMS, ids=str)
def test_program_imports_public_names_only(path: Path) -> None:
    assert deep_imports(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_document_imports_public_names_only(path: Path) -> None:
    assert [name for line in python_blocks(path) for name in deep_imports(line)] == []


def test_extending_document_names_public_names_only() -> None:
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8").partition("## A command type of this project")[0]
    exported = {f"{root.__name__}.{name}" for root in ROOTS for name in root.__all__}
    assert [name for name in DEEP_NAME.findall(text) if name not in exported] == []


def test_deep_import_is_found() -> None:
    assert deep_imports("from consumer.handler import Handler") == ["consumer.handler.Handler"]
    assert deep_imports("from consumer import _MODULE_OF") == ["consumer._MODULE_OF"]
    assert deep_imports("import broker.server") == ["broker.server"]
    assert deep_imports("from broker import Command") == []


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.__name__)
def test_every_public_name_exists_and_has_a_docstring(root: ModuleType) -> None:
    for name in root.__all__:
        value = getattr(root, name)
        assert isinstance(value, str | type(root)) or value.__doc__, name


def test_public_api_has_few_names() -> None:
    assert sum(len(root.__all__) for root in ROOTS) <= MAX_NAMES


def test_unknown_name_is_an_attribute_error() -> None:
    for root in ROOTS:
        with pytest.raises(AttributeError, match="no_such_name"):
            root.no_such_name  # noqa: B018


@pytest.mark.parametrize("module", ["consumer", "broker", "consumer.ports"])
def test_import_loads_neither_paho_nor_cryptography(module: str) -> None:
    heavy = {"paho", "cryptography", "diskcache", "httpx"}
    script = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
