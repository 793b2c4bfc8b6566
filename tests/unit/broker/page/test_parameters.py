"""Fields made from the schema of a type, and the parameters that a form has."""

import json

from broker.command_types import known_command_types, parameters_of
from broker.contract.commands import parse_parameters
from broker.page.parameters import fields_for, filled_in


def kinds_of(command_type: str) -> dict[str, str]:
    return {it.name: it.kind for it in fields_for(command_type)}


def test_every_type_has_its_fields() -> None:
    for name in known_command_types()[0]:
        shape = parameters_of(name)
        assert shape is not None
        assert list(kinds_of(name)) == list(shape.__dataclass_fields__)


def test_fields_have_the_kinds_of_their_schemas() -> None:
    assert kinds_of("restart-agent") == {"delay_s": "number"}
    assert kinds_of("set-group") == {"groups": "lines"}
    assert kinds_of("enroll-agent")["token"] == "secret"
    assert kinds_of("apply-centralized-configuration")["content"] == "long"
    assert kinds_of("get-audit-journal") == {"first": "integer"}
    response = {"script": "text", "alert": "json", "extra_args": "lines", "timeout_s": "number"}
    assert kinds_of("execute-active-response") == response


def test_what_is_empty_or_default_is_left_out() -> None:
    assert filled_in(fields_for("restart-agent"), {"p.delay_s": "0"}).parameters == {}
    assert filled_in(fields_for("get-agent-configuration"), {"p.section": ""}).parameters == {}
    assert filled_in(fields_for("get-agent-configuration"), {"p.effective": "yes"}).parameters == {"effective": True}


def test_filled_in_parameters_are_those_of_the_contract() -> None:
    form = {
        "p.script": "firewall-drop",
        "p.alert": json.dumps({"id": 1}),
        "p.extra_args": "a\r\n b ",
        "p.timeout_s": "5",
    }
    filled = filled_in(fields_for("execute-active-response"), form)
    assert filled.parameters == {
        "script": "firewall-drop",
        "alert": {"id": 1},
        "extra_args": ["a", "b"],
        "timeout_s": 5.0,
    }
    shape = parameters_of("execute-active-response")
    assert shape is not None
    parse_parameters("execute-active-response", shape, filled.parameters)


def test_text_that_is_no_value_is_a_problem_of_its_field() -> None:
    filled = filled_in(fields_for("get-audit-journal"), {"p.first": "x"})
    assert filled.problems == {"first": "This must be an integer."}
    for alert in ("{", '{"a": NaN}', '{"a": 1, "a": 2}', '"\\ud800"', "[" * 100_000):
        form = {"p.script": "a", "p.alert": alert}
        assert list(filled_in(fields_for("execute-active-response"), form).problems) == ["alert"], alert[:20]
    assert list(filled_in(fields_for("upgrade-agent"), {}).problems) == ["package"]
