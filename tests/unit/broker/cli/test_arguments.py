"""What users write on acm's command line."""

from pathlib import Path

import pytest

from broker.cli.arguments import read_parameters, with_default_wait
from broker.durations import parse_duration
from broker.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("7d", 604800), ("20ms", 0.02)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1 m", "9999999d", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not a duration"):
        parse_duration(text)


def test_pairs_win_over_the_document_and_json_values_are_taken_as_such(tmp_path: Path) -> None:
    document = tmp_path / "parameters.json"
    document.write_text('{"a": 1, "b": "kept"}')
    read = read_parameters(["a=2", "text=plain", "list=[1]", "url=x=y"], f"@{document}")
    assert read == {"a": 2, "b": "kept", "text": "plain", "list": [1], "url": "x=y"}


def test_a_file_is_taken_as_text_and_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"[1]\r\n")
    assert read_parameters([f"content=@{tmp_path}/list"], None) == {"content": "[1]\r\n"}
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(InvalidArgument, match="bytes is not text in UTF-8"):
        read_parameters([f"content=@{tmp_path}/bytes"], None)
    with pytest.raises(InvalidArgument, match="content: /nowhere cannot be read: No such file"):
        read_parameters(["content=@/nowhere"], None)


@pytest.mark.parametrize(
    ("pairs", "document"), [(["a"], None), (["=a"], None), ([], "[1]"), ([], "{"), ([], "@/nowhere"), ([], "[" * 99999)]
)
def test_bad_parameters_are_refused(pairs: list[str], document: str | None) -> None:
    with pytest.raises(InvalidArgument):
        read_parameters(pairs, document)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a b --wait", "a b --wait=60s"),
        ("a b --wait --json", "a b --wait=60s --json"),
        ("a b --wait 5 x=1", "a b --wait 5 x=1"),
        ("a b --wait x=1", "a b --wait=60s x=1"),
        ("a b --wait=7", "a b --wait=7"),
        ("a b -- --wait", "a b -- --wait"),
    ],
)
def test_a_bare_wait_gets_its_default(given: str, meant: str) -> None:
    assert with_default_wait(given.split()) == meant.split()
