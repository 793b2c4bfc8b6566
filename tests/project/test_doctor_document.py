"""The tables of docs/operations.md name every fault that a doctor can find, with its meaning and fix."""

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from broker.system import checkup, findings
from broker.system.findings import Fault

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
PACKAGES = [name for name in ("broker.doctor", "consumer.doctor") if find_spec(name)]


def modules_of(package: str) -> list[ModuleType]:
    names = [it.name for it in pkgutil.iter_modules(import_module(package).__path__)]
    return [import_module(f"{package}.{name}") for name in names]


def faults_of(modules: Sequence[ModuleType]) -> list[Fault]:
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Fault)]
    return list({id(fault): fault for fault in found}.values())


SHARED = [checkup, findings]
OWN = {package: modules_of(package) for package in PACKAGES}


def row(fault: Fault) -> str:
    return f"| `{fault.code}` | {fault.level.upper()} | {fault.meaning} | {fault.fix} |"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_of_a_doctor_has_two_meanings(package: str) -> None:
    codes = [fault.code for fault in faults_of([*SHARED, *OWN[package]])]
    assert sorted(codes) == sorted(set(codes))


def test_tables_have_a_row_for_every_fault_and_no_other() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").split("\n## Doctor\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    faults = faults_of([*SHARED, *(module for modules in OWN.values() for module in modules)])
    assert sorted(rows) == sorted(map(row, faults))
