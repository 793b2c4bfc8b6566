"""Foreign forms of a command, and the parameters of each command type."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.contract.codec import DecodeError, decode_commands
from broker.contract.commands import COMMAND_TYPES, InvalidParameters, parse_parameters
from broker.contract.commands.get_agent_configuration import GetAgentConfiguration
from broker.contract.commands.restart_agent import RestartAgent
from broker.contract.foreign_forms import ALIASES
from broker.contract.messages import Command, Origin
from tests.support.errors import raises_code

RECEIVED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def decode(**members: Any) -> Command:
    frame = json.dumps(members).encode()
    (command,) = decode_commands(frame, received_at=RECEIVED_AT, new_id=lambda: "new-id")
    return command


@pytest.mark.parametrize(("alias", "command_type"), ALIASES.items())
def test_aliases_are_read_in_every_foreign_form(alias: str, command_type: str) -> None:
    assert decode(command=alias).type == command_type
    assert decode(command={"name": alias, "type": "command"}).type == command_type
    assert decode(command={"name": "command1", "type": alias}).type == command_type
    assert decode(action={"name": alias}).type == command_type


@pytest.mark.parametrize(
    ("verb", "command_type"),
    [
        ({"name": "stop", "type": "start"}, "stop-agent"),
        ({"name": "001", "type": "stateless"}, "001"),
        ({"name": "only-a-name"}, "only-a-name"),
        ({"type": "only-a-type"}, "only-a-type"),
        ({"name": "x", "type": "upgrade-agent"}, "upgrade-agent"),
    ],
)
def test_name_is_the_verb_unless_only_the_type_is_known(verb: dict[str, str], command_type: str) -> None:
    assert decode(command=verb).type == command_type


def test_missing_members_are_filled_in_and_named() -> None:
    command = decode(command="restart")
    assert (command.id, command.parameters, command.created_at) == ("new-id", {}, RECEIVED_AT)
    assert command.origin == Origin("unknown", "unknown")
    assert command.notes == tuple(
        f"{name} was missing and was filled in" for name in ("id", "parameters", "origin", "created_at")
    )


def test_incomplete_origin_is_completed() -> None:
    command = decode(command="restart", origin={"serverName": "node01"})
    assert command.origin == Origin("node01", "unknown")
    assert "origin.module was missing and was filled in" in command.notes


def test_present_members_are_kept() -> None:
    command = decode(
        id="c1",
        command="restart",
        parameters={},
        origin={"name": "n", "module": "m"},
        created_at="2026-03-01T10:00:00Z",
        expires_at="2026-03-01T12:00:00+01:00",
        timeout_s=5,
    )
    assert command.notes == ()
    assert (command.id, command.timeout_s) == ("c1", 5.0)
    assert command.created_at == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert command.expires_at == datetime(2026, 3, 1, 11, tzinfo=UTC)


def test_form_f_without_an_id_gets_a_new_one() -> None:
    command = decode(action={"name": "restart", "args": {"force": True}}, user="u", source="s")
    assert (command.id, command.parameters, command.origin) == ("new-id", {"force": True}, Origin("u", "s"))
    assert "id was missing and was filled in" in command.notes


def test_unknown_fields_are_ignored_and_named_at_each_level() -> None:
    command = decode(command={"name": "restart", "x": 1}, origin={"y": 1}, sequence={"epoch": 1, "number": 1})
    assert command.sequence is None
    assert {note for note in command.notes if note.startswith("unknown")} == {
        "unknown field 'sequence' was ignored",
        "unknown field 'command.x' was ignored",
        "unknown field 'origin.y' was ignored",
    }


def test_original_is_the_json_as_received() -> None:
    assert decode(command="restart", extra=[1, None]).original == {"command": "restart", "extra": [1, None]}


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"command": True}, "$.command"),
        ({"action": "restart"}, "$.action"),
        ({"command": {}}, "$.command"),
        ({"command": {"name": True}}, "$.command.name"),
        ({"command": ""}, "$.type"),
        ({"command": "x" * 129}, "$.type"),
        ({"command": "restart", "id": 5}, "$.id"),
        ({"command": "restart", "id": ""}, "$.id"),
        ({"command": "restart", "parameters": "x"}, "$.parameters"),
        ({"command": "restart", "origin": {"serverName": False}}, "$.origin.serverName"),
        ({"command": "restart", "created_at": "2026-03-01T10:00:00"}, "$.created_at"),
        ({"command": "restart", "timeout_s": False}, "$.timeout_s"),
        ({"action": {}}, "$.action"),
        ({"action": {"name": 1}}, "$.action.name"),
        ({"action": {"name": "restart", "args": []}}, "$.action.args"),
        ({"action": {"name": "restart"}, "user": 0}, "$.user"),
        ({"action": {"name": "restart"}, "document_id": "\u0007"}, "$.id"),
        ({"command": {"name": "restart-agent", "parameters": {"delay_s": 9}}}, "$.command.parameters"),
        ({"command": "restart-agent", "args": {"delay_s": 9}}, "$.args"),
        ({"action": {"name": "restart", "params": {"delay_s": 9}}}, "$.action.params"),
        ({"action": {"name": "restart"}, "parameters": {"delay_s": 9}}, "$.parameters"),
    ],
)
def test_wrong_types_are_refused_with_their_path(members: dict[str, Any], path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(**members)
    assert caught.value.path == path


def parse(command_type: str, parameters: dict[str, Any], *, foreign_form: bool = False) -> Any:
    return parse_parameters(command_type, COMMAND_TYPES[command_type].parameters, parameters, foreign_form=foreign_form)


def test_parameters_become_the_dataclass_of_their_type() -> None:
    assert parse("restart-agent", {}) == RestartAgent()
    assert parse("get-agent-configuration", {}) == GetAgentConfiguration(section=None)
    assert parse("get-agent-configuration", {"section": "mqtt"}) == GetAgentConfiguration("mqtt")


@pytest.mark.parametrize("command_type", sorted(COMMAND_TYPES.keys() - {"execute-active-response"}))
def test_wrapper_keys_are_ignored_only_in_a_foreign_form(command_type: str) -> None:
    wrapped = {"data": "restart agent", "error": 0, "extra_args": [], "status": ""}
    frame = Path(__file__).parents[3] / "contract" / "frames" / f"command-{command_type}.json"
    parameters = json.loads(frame.read_bytes())["parameters"]
    assert parse(command_type, parameters | wrapped, foreign_form=True) == parse(command_type, parameters)
    with raises_code(InvalidParameters, "unknown_parameter"):
        parse(command_type, parameters | wrapped)


@pytest.mark.parametrize(
    ("command_type", "parameters", "code", "names"),
    [
        ("restart-agent", {"force": True}, "unknown_parameter", ["'force'", "it takes delay_s."]),
        ("get-agent-configuration", {"part": "x"}, "unknown_parameter", ["'part'", "it takes effective, section."]),
        ("execute-active-response", {"data": "x", "extra_args": []}, "missing_parameter", ["'script'", "alert, "]),
        ("execute-active-response", {"script": "x", "timeout_s": -1}, "invalid_parameter", ["timeout_s must be a "]),
        ("get-agent-configuration", {"section": 1}, "invalid_parameter", ["section must be ", "not 1"]),
    ],
)
def test_wrong_parameters_are_refused_with_their_names(
    command_type: str, parameters: dict[str, Any], code: str, names: list[str]
) -> None:
    with raises_code(InvalidParameters, code) as caught:
        parse(command_type, parameters, foreign_form=True)
    assert [name for name in names if name not in str(caught.value)] == []


@dataclass(frozen=True)
class Nothing:
    pass


def test_type_without_parameters_refuses_any() -> None:
    with raises_code(InvalidParameters, "unknown_parameter") as caught:
        parse_parameters("x", Nothing, {"force": True})
    assert "it takes no parameters" in str(caught.value)
