"""Text patterns constrain the whole text, in every message, package and configuration."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from types import ModuleType
from typing import Annotated, Any

import msgspec
import pytest
from msgspec.inspect import StrType, type_info

import broker.contract
import broker.release.manifest
import consumer.settings
from broker.contract.commands import InvalidParameters, parse_parameters
from broker.contract.commands.apply_centralized_configuration import ApplyCentralizedConfiguration
from broker.contract.commands.set_group import SetGroup
from broker.contract.dsse import SigningKey, VerifyingKey
from broker.contract.topics import InvalidName, check_agent_name
from tests.support.errors import raises_code

EXAMPLES = ("a", "0" * 64)
KEYS = (SigningKey, VerifyingKey)  # hold no text, and name types that are not loaded


def modules() -> Iterator[ModuleType]:
    yield broker.release.manifest
    yield consumer.settings
    for found in pkgutil.walk_packages(broker.contract.__path__, "broker.contract."):
        yield importlib.import_module(found.name)


def shapes() -> Iterator[type]:
    for module in modules():
        for kind in vars(module).values():
            declares = isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, msgspec.Struct))
            if declares and kind.__module__ == module.__name__ and kind not in KEYS:
                yield kind


def patterns_in(node: Any) -> Iterator[str]:
    if isinstance(node, StrType):
        if node.pattern is not None:
            yield node.pattern
    elif isinstance(node, tuple):
        for part in node:
            yield from patterns_in(part)
    elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field):
        for part in node.__struct_fields__:
            yield from patterns_in(getattr(node, part))


PATTERNS = sorted({pattern for shape in shapes() for pattern in patterns_in(type_info(shape))})


def accepts(pattern: str, text: str) -> bool:
    try:
        msgspec.convert(text, Annotated[str, msgspec.Meta(pattern=pattern)])
    except msgspec.ValidationError:
        return False
    return True


def test_walk_finds_the_patterns_of_known_fields() -> None:
    found = {text: [pattern for pattern in PATTERNS if re.search(pattern, text)] for text in EXAMPLES}
    assert all(found.values())
    assert len(PATTERNS) >= 3


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("around", ["{}\n", "\n{}", "{}\n{}", "{} ", " {}", "{}\r"])
def test_valid_value_with_other_text_around_it_is_refused(pattern: str, around: str) -> None:
    (valid, *_) = (text for text in EXAMPLES if accepts(pattern, text))
    assert not accepts(pattern, around.format(valid, valid))


@pytest.mark.parametrize("name", ["edge", "e", "0.a_b-c", "e" * 63, "Edge", "edge\n", "", "-e", "e" * 64, "ed ge", "é"])
def test_group_name_is_valid_in_each_place_that_takes_one_or_in_none(name: str) -> None:
    try:
        check_agent_name(name)
    except InvalidName:
        for shape, parameters in (
            (SetGroup, {"groups": [name]}),
            (ApplyCentralizedConfiguration, {"content": "", "group": name}),
        ):
            with pytest.raises(msgspec.ValidationError, match="regex"):
                msgspec.convert(parameters, shape)
    else:
        assert msgspec.convert({"groups": [name]}, SetGroup).groups == (name,)
        assert msgspec.convert({"content": "", "group": name}, ApplyCentralizedConfiguration).group == name


@pytest.mark.parametrize(
    "given", [{}, {"content": "x", "artifact": {"url": "blob:" + "0" * 64, "sha256": "0" * 64, "size": 1}}]
)
def test_configuration_has_either_content_or_an_artifact(given: dict[str, Any]) -> None:
    with raises_code(InvalidParameters, "invalid_parameter"):
        parse_parameters("apply-centralized-configuration", ApplyCentralizedConfiguration, given)
