"""What is wrong with parameters, in words that name the parameter, what it must be, and what it is."""

import pytest

from broker.contract.commands import COMMAND_TYPES, InvalidParameters, parse_parameters
from broker.contract.messages import JsonObject
from tests.support.errors import raises_code

ARTIFACT = {"url": "https://a.example/b", "sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("command_type", "parameters", "wrong"),
    [
        ("restart-agent", {"delay_s": -5}, "delay_s must be a number from 0 to 86400, not -5"),
        ("restart-agent", {"delay_s": "secret"}, "delay_s must be a number from 0 to 86400, not text"),
        ("get-audit-journal", {"first": 0}, "first must be an integer of at least 1, not 0"),
        ("set-group", {"groups": "edge"}, "groups must be a list of text, not text"),
        ("set-group", {"groups": ["edge", 1]}, "groups[1] must be text, not 1"),
        (
            "set-group",
            {"groups": ["A B"]},
            "groups[0] must be the name of a group of agents: 1 to 63 of a-z, 0-9, `.`, `_`, `-`",
        ),
        ("apply-centralized-configuration", {"content": {}}, "content must be text, not a JSON object"),
        (
            "apply-centralized-configuration",
            {"content": "a", "file": "/etc/x"},
            "file must be the name of a file, not a path: letters, digits and `.`, `_`, `-`",
        ),
        ("upgrade-agent", {"package": "x"}, "package must be an Artifact, not text"),
        ("upgrade-agent", {"package": {**ARTIFACT, "url": 1}}, "package.url: expected `str`, got `int`"),
        ("apply-centralized-configuration", {}, "give either content or artifact, not both"),
    ],
)
def test_wrong_parameter_is_named_with_what_it_must_be(command_type: str, parameters: JsonObject, wrong: str) -> None:
    with raises_code(InvalidParameters, "invalid_parameter") as refused:
        parse_parameters(command_type, COMMAND_TYPES[command_type].parameters, parameters)
    assert str(refused.value) == f"The parameters of {command_type} are wrong: {wrong}."
