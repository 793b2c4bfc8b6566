"""Arguments on acm's command line."""

from pathlib import Path

import pytest

from broker.cli.arguments import keys_on_command_line, read_parameters
from broker.durations import parse_duration
from broker.errors import InvalidArgument
from tests.support.errors import raises_code


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("7d", 604800), ("20ms", 0.02)]
)
def test_duration_with_or_without_a_unit_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1 m", "9999999d", "1w"])
def test_malformed_duration_is_rejected(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_duration(text)


def test_pairs_override_the_document_and_valid_json_is_read_as_json(tmp_path: Path) -> None:
    document = tmp_path / "parameters.json"
    document.write_text('{"a": 1, "b": "kept"}')
    read = read_parameters(["a=2", "text=plain", "list=[1]", "url=x=y"], f"@{document}")
    assert read == {"a": 2, "b": "kept", "text": "plain", "list": [1], "url": "x=y"}


def test_content_of_a_file_is_text_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"[1]\r\n")
    assert read_parameters([f"content=@{tmp_path}/list"], None) == {"content": "[1]\r\n"}
    (tmp_path / "bytes").write_bytes(b"\xff")
    with raises_code(InvalidArgument, "not_utf8") as caught:
        read_parameters([f"content=@{tmp_path}/bytes"], None)
    assert str(caught.value).startswith(f"content: {tmp_path}/bytes ")
    with raises_code(InvalidArgument, "unreadable_file") as caught:
        read_parameters(["content=@/nowhere"], None)
    assert str(caught.value) == "content: cannot read /nowhere: No such file or directory."


@pytest.mark.parametrize(
    ("pairs", "document"),
    [(["a"], None), (["=a"], None), (["\udce9=1"], None), ([], "[1]"), ([], "{"), ([], "@/nowhere"), ([], "[" * 99999)],
)
def test_malformed_parameters_are_rejected(pairs: list[str], document: str | None) -> None:
    with pytest.raises(InvalidArgument):
        read_parameters(pairs, document)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("NaN", "not_finite"),
        ("-Infinity", "not_finite"),
        ("1e400", "not_finite"),
        ('{"x":[NaN]}', "not_finite"),
        ("9" * 20, "integer_out_of_range"),
        ("9" * 5000, "integer_out_of_range"),
        ('{"x":1,"x":2}', "duplicate_key"),
        (r'"\ud800"', "lone_surrogate"),
        ("caf\udce9", "not_utf8"),
    ],
)
def test_value_that_no_agent_would_accept_is_refused(value: str, code: str) -> None:
    with raises_code(InvalidArgument, code):
        read_parameters([f"x={value}"], None)
    with raises_code(InvalidArgument, code):
        read_parameters([], f'{{"x":{value}}}')


def test_key_that_is_given_twice_is_refused() -> None:
    with raises_code(InvalidArgument, "given_twice"):
        read_parameters(["delay_s=1", "delay_s=2"], None)


@pytest.mark.parametrize(
    ("pairs", "document", "keys"),
    [(["a=1", "b=@file"], None, {"a"}), (["a=1"], '{"c": 1}', {"a", "c"}), ([], "@file", set())],
)
def test_keys_on_the_command_line_are_those_without_a_file(
    pairs: list[str], document: str | None, keys: set[str]
) -> None:
    assert keys_on_command_line(pairs, document) == keys
