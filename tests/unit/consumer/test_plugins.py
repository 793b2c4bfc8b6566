"""Handlers of other packages, as packages on the path with their metadata."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import HandlerTableError
from consumer.handler import Handler, Interruption, Result
from consumer.handlers.built_in import added_handlers
from consumer.plugins import HANDLERS_GROUP, NO_PLUG_INS, load_plug_ins
from tests.support.errors import raises_code

HANDLER = """
from dataclasses import replace
from consumer.handlers.set_group import HANDLER as SET_GROUP
HANDLER = replace(SET_GROUP, command_type={name!r}, replaces={replaces})
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, entry: str, source: str) -> None:
        """Make a package with one module and one entry point, whose module is unique to the test."""
        module = f"{package}_{tmp_path.name}"
        (tmp_path / f"{module}.py").write_text(source)
        about = tmp_path / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{HANDLERS_GROUP}]\n{entry} = {module}:HANDLER\n")

    return install


def test_no_plug_ins_are_found_if_none_are_installed() -> None:
    assert load_plug_ins() == NO_PLUG_INS


def test_handlers_of_installed_packages_are_loaded(install: Install) -> None:
    install("one", "rotate-logs", HANDLER.format(name="rotate-logs", replaces=False))
    install("two", "restart-agent", HANDLER.format(name="restart-agent", replaces=True))
    plug_ins = load_plug_ins()
    assert plug_ins.problem is None
    table = added_handlers(plug_ins.handlers)
    assert {handler.command_type for handler in plug_ins.handlers} == {"rotate-logs", "restart-agent"}
    assert table["restart-agent"].interruption is Interruption.RERUN


@pytest.mark.parametrize(
    ("entry", "source", "said"),
    [
        ("bad", "import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError: No module named 'nowhere"),
        ("bad", "def", "cannot be imported: SyntaxError"),
        ("bad", "1 / 0", "cannot be imported: ZeroDivisionError: division by zero."),
        ("bad", "raise SystemExit(3)", "cannot be imported: SystemExit: 3."),
        ("bad", "", "cannot be imported: AttributeError"),
        ("bad", "HANDLER = print", "is not a Handler."),
        ("bad", HANDLER.format(name="good", replaces=False), "handles 'good'; the entry point must have that name."),
        ("bad", HANDLER.format(name="bad", replaces=True), "There is no handler for 'bad' to replace."),
        (
            "restart-agent",
            HANDLER.format(name="restart-agent", replaces=False),
            "Two handlers claim the command type 'restart-agent'; keep one.",
        ),
    ],
)
def test_broken_plug_in_is_named_and_the_others_are_used(install: Install, entry: str, source: str, said: str) -> None:
    install("broken", entry, source)
    install("whole", "rotate-logs", HANDLER.format(name="rotate-logs", replaces=False))
    plug_ins = load_plug_ins()
    assert [handler.command_type for handler in plug_ins.handlers] == ["rotate-logs"]
    assert plug_ins.problem is not None
    assert plug_ins.problem.startswith(f"The plug-in {entry} of broken 1.0 is not used: ")
    assert said in plug_ins.problem


def test_one_of_two_packages_with_the_same_type_is_used(install: Install) -> None:
    for package in ("one", "two"):
        install(package, "rotate-logs", HANDLER.format(name="rotate-logs", replaces=False))
    plug_ins = load_plug_ins()
    assert [handler.command_type for handler in plug_ins.handlers] == ["rotate-logs"]
    assert plug_ins.problem is not None


@dataclass(frozen=True)
class Nothing:
    pass


def act(*_: Any) -> Result:
    return Result("Done.")


def test_handler_is_replaced_only_by_one_with_replaces() -> None:
    mine = Handler("act", Interruption.RERUN, Nothing, act)
    other = replace(mine, interruption=Interruption.REPORT, replaces=True)
    assert added_handlers([mine, other])["act"] is other
    for unfit in ([mine, mine], [other], [mine, other, other], [mine, other, mine]):
        with pytest.raises(HandlerTableError):
            added_handlers(unfit)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"parameters": dict}, "not_a_dataclass"),
        ({"interruption": Interruption.PROBE}, "probe_mismatch"),
        ({"probe": act}, "probe_mismatch"),
    ],
)
def test_handler_whose_parts_do_not_fit_is_refused(members: dict[str, Any], code: str) -> None:
    mine = Handler("act", Interruption.RERUN, Nothing, act)
    with raises_code(HandlerTableError, code):
        replace(mine, **members)
