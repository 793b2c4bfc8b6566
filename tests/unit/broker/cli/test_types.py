"""The command types of acm, built in and from installed packages."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli.main import app
from broker.cli.type_examples import parameter_examples
from broker.cli.types import describe_members, summary_of, type_json
from broker.command_types import known_command_types, parameters_of
from broker.contract.commands import COMMAND_TYPES
from broker.errors import InvalidArgument
from tests.support.errors import raises_code

BrokenPackage = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BrokenPackage:
    def install(value: str, name: str = "rotate-logs") -> None:
        info = tmp_path / "plug_in-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[agent_command_manager.command_types]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_installed_package_adds_its_command_type(package: BrokenPackage) -> None:
    package("rotate_logs.contract:COMMAND_TYPE")
    types, warnings = known_command_types()
    assert warnings == []
    assert types.keys() == {*COMMAND_TYPES, "rotate-logs"}
    assert summary_of(types["rotate-logs"]).startswith("Rename the file at `path`")


@pytest.mark.parametrize(
    ("value", "named"),
    [("nowhere:KIND", "No module named 'nowhere'"), ("rotate_logs.contract:RotateLogs", "CommandType")],
)
def test_broken_package_is_reported_and_hides_no_other_type(package: BrokenPackage, value: str, named: str) -> None:
    package(value)
    types, warnings = known_command_types()
    assert types.keys() == COMMAND_TYPES.keys()
    assert len(warnings) == 1
    assert "'rotate-logs'" in warnings[0]
    assert named in warnings[0]


def test_package_cannot_replace_a_built_in_type(package: BrokenPackage) -> None:
    package("rotate_logs.contract:COMMAND_TYPE", "stop-agent")
    types, warnings = known_command_types()
    assert types == COMMAND_TYPES
    assert len(warnings) == 1
    assert "'stop-agent'" in warnings[0]


def test_type_without_dataclasses_is_reported_in_one_line(
    package: BrokenPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from broker.contract.commands import CommandType\nNUMBER = CommandType(int, int)\n"
    (tmp_path / "acm_wrong.py").write_text(code + "def __getattr__(name): raise RuntimeError('on\\nfire')\n")
    package("acm_wrong:NUMBER")
    assert "dataclass" in known_command_types()[1][0]
    (tmp_path / "plug_in-1.0.dist-info" / "entry_points.txt").write_text(
        "[agent_command_manager.command_types]\nrotate-logs = acm_wrong:MISSING\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert known_command_types()[1] == ["The command type 'rotate-logs' (acm_wrong:MISSING) cannot be loaded: on fire."]


@pytest.mark.parametrize("name", COMMAND_TYPES)
def test_every_type_has_a_summary_and_described_members(name: str) -> None:
    kind = COMMAND_TYPES[name]
    shown = type_json(name, kind)
    assert summary_of(kind).endswith((".", ":"))
    assert set(shown["parameters"].get("properties", {})) == {
        member for member, _, _ in describe_members(kind.parameters)
    }
    assert all(words for _, words, _ in describe_members(kind.data))


def test_members_are_described_for_people() -> None:
    words = {name: (kind, default) for name, kind, default in describe_members(COMMAND_TYPES["set-group"].parameters)}
    assert words == {"groups": ("list of text", "required")}


def test_parameters_of_an_installed_type_are_known_and_those_of_a_broken_one_are_not(
    package: BrokenPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters_of.cache_clear()
    package("rotate_logs.contract:COMMAND_TYPE")
    found = parameters_of("rotate-logs")
    assert found is not None
    assert found.__name__ == "RotateLogs"
    parameters_of.cache_clear()
    (tmp_path / "plug_in-1.0.dist-info" / "entry_points.txt").write_text(
        "[agent_command_manager.command_types]\nrotate-logs = nowhere:KIND\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert parameters_of("rotate-logs") is None
    parameters_of.cache_clear()


def test_broken_package_is_reported_on_stderr_beside_the_list(package: BrokenPackage) -> None:
    package("nowhere:KIND")
    shown = CliRunner().invoke(app, ["types", "--json"])
    assert "stop-agent" in {kind["type"] for kind in json.loads(shown.stdout)}
    assert shown.stderr.startswith("acm: The command type 'rotate-logs' (nowhere:KIND) cannot be loaded")


def test_broken_package_does_not_prevent_that_a_command_is_sent(package: BrokenPackage, tmp_path: Path) -> None:
    package("nowhere:KIND")
    words = ["send", "web-01", "restart-agent", "--allow-unknown", "--ledger", f"sqlite:///{tmp_path}/ledger.db"]
    sent = CliRunner().invoke(app, words)
    assert sent.exit_code == 0
    assert sent.stderr.startswith("acm: The command type 'rotate-logs' (nowhere:KIND) cannot be loaded")


@pytest.mark.parametrize("name", COMMAND_TYPES)
def test_one_type_is_explained_with_an_example_of_each_parameter(name: str) -> None:
    shown = CliRunner().invoke(app, ["types", name]).stdout
    for member, _, _ in describe_members(COMMAND_TYPES[name].parameters):
        assert f"  {member}: " in shown
        assert f"{member}=" in shown
    assert f"Example: acm send web-01 {name}" in shown


def test_examples_are_words_of_a_shell() -> None:
    assert parameter_examples(COMMAND_TYPES["set-group"].parameters) == {"groups": "'groups=[\"TEXT\"]'"}
    assert parameter_examples(COMMAND_TYPES["restart-agent"].parameters) == {"delay_s": "delay_s=1"}
    assert parameter_examples(COMMAND_TYPES["upgrade-agent"].parameters)["package"] == "--file package=FILE"


def test_one_type_has_the_json_that_it_has_in_the_list() -> None:
    (listed,) = (it for it in json.loads(acm_types("--json")) if it["type"] == "stop-agent")
    assert json.loads(acm_types("stop-agent", "--json")) == [listed]
    assert "stop-agent" in acm_types("-o", "name").split()


def test_unknown_type_is_refused_with_the_most_similar_one() -> None:
    with raises_code(InvalidArgument, "unknown_type") as refused:
        acm_types("stop-agnet")
    assert str(refused.value).endswith("Did you mean stop-agent?")


def acm_types(*words: str) -> str:
    return str(CliRunner().invoke(app, ["types", *words], catch_exceptions=False).stdout)
