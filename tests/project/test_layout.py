"""The rules of the layers: few modules at a root, no cycle between folders, no import of a layer above."""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
from grimp import ImportGraph

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "consumer")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LAYERS = {
    contract["containers"][0]: [layer.split(" | ") for layer in contract["layers"]]
    for contract in CONTRACTS
    if contract["type"] == "layers"
}
IGNORED = [
    pair.split(" -> ")
    for contract in CONTRACTS
    if contract["type"] == "layers"
    for pair in contract.get("ignore_imports", ())
]
MAX_ROOT_MODULES = 12
SHARED_NAMES = {
    "main": "each program's entry point",
    "handler": "each command type's module makes its handler with it",
    "load_config": "each program's settings",
}
"""What may be defined in several modules: conventions, found by the module's name and not by the function's."""


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    for pair in IGNORED:
        graph.remove_import(importer=pair[0], imported=pair[1])
    return graph


def folder_imports(graph: ImportGraph, package: str) -> set[tuple[str, str]]:
    """Return the pairs of a package's folders (or root modules) of which the first imports the second."""

    def folder(module: str) -> str:
        return module.split(".")[1] if module.startswith(f"{package}.") else ""

    pairs = {
        (folder(module), folder(target))
        for module in graph.modules
        for target in graph.find_modules_directly_imported_by(module)
    }
    return {(a, b) for a, b in pairs if a and b and a != b}


@pytest.mark.parametrize("package", PACKAGES)
def test_root_has_at_most_twelve_modules(package: str) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= MAX_ROOT_MODULES


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_do_not_import_each_other_in_a_cycle(graph: ImportGraph, package: str) -> None:
    imports = folder_imports(graph, package)
    remaining = {name for pair in imports for name in pair}
    while free := {name for name in remaining if not any(a == name and b in remaining for a, b in imports)}:
        remaining -= free
    assert remaining == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_imports_one_above_or_beside_it(graph: ImportGraph, package: str) -> None:
    floor = {name: number for number, layer in enumerate(reversed(LAYERS[package])) for name in layer}
    imports = {pair for pair in folder_imports(graph, package) if "__main__" not in pair}
    assert [f"{a} imports {b}" for a, b in sorted(imports) if floor[b] >= floor[a]] == []


def test_nothing_inside_imports_from_a_public_root(graph: ImportGraph) -> None:
    lines = [
        str(detail["line_contents"])
        for module in sorted(graph.modules - set(PACKAGES))
        for root in graph.find_modules_directly_imported_by(module) & set(PACKAGES)
        for detail in graph.get_import_details(importer=module, imported=root)
    ]
    assert [line for line in lines if line.startswith("from ")] == []


def test_no_two_modules_define_the_same_public_name() -> None:
    homes = defaultdict(set)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in public_names(ast.parse(path.read_text(encoding="utf-8"))):
                homes[name].add(str(path.relative_to(ROOT)))
    assert {name: where for name, where in homes.items() if len(where) > 1 and name not in SHARED_NAMES} == {}


def public_names(module: ast.Module) -> Iterator[str]:
    """Yield a module's public classes and functions, without a CLI's commands, which are named as users call them."""
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_command = any(ast.unparse(decorator).startswith("app.command(") for decorator in node.decorator_list)
            if not (is_command or node.name.startswith("_")):
                yield node.name
