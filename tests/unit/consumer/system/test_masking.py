"""No secret is shown, whatever holds it."""

import json
from typing import Any

import pytest

from consumer.settings import Secret
from consumer.system.masking import MASK, mask_text, mask_values, parse_document


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": 1, "b": [True, None, 1.5]}, {"a": 1, "b": [True, None, 1.5]}),
        ({"api_key": "hush", "tokens": ["hush"]}, {"api_key": MASK, "tokens": MASK}),
        ({"Password": 12345, "passphrase": ""}, {"Password": MASK, "passphrase": ""}),
        ({"credentials": {"user": "me", "word": "hush"}}, {"credentials": {"user": MASK, "word": MASK}}),
        ({"a": [{"secret": "hush"}]}, {"a": [{"secret": MASK}]}),
        ({1: {(2, 3): "x"}}, {"1": {"(2, 3)": "x"}}),
        (
            ["run", "--token", "hush", "--db-password=hush", "-v"],
            ["run", "--token", MASK, f"--db-password={MASK}", "-v"],
        ),
        ("mqtt://me:hush@host:1883/x", f"mqtt://me:{MASK}@host:1883/x"),
        ("see https://host/x?token=hush", f"see https://host/x?token={MASK}"),
        ({"at": Secret("hush")}, {"at": MASK}),
        ({"at": Secret("amqp://me:hush@host")}, {"at": f"amqp://me:{MASK}@host"}),
        ({"at": Secret("amqp://me@corp:hu@sh@host")}, {"at": f"amqp://me@corp:{MASK}@host"}),
        ("from a://me:hu/sh@h/x,b://me:hush@h to me@h", f"from a://me:{MASK}@h/x,b://me:{MASK}@h to me@h"),
    ],
)
def test_secrets_are_known_by_type_by_key_and_by_shape(value: Any, shown: Any) -> None:
    assert mask_values(value) == shown


PEM = "-----BEGIN PRIVATE KEY-----\nhush\nhush\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'user = "me"\n[db]\npassword = """\nhush\nhush"""\nurl = "pg://me:hush@host"\n'),
        ("a.yaml", "user: me\ndb:\n  password: |\n    hush\n    hush\nlist:\n  - {token: hush}\n"),
        ("a.yml", "user: me\n---\nbase: &base {secret: hush}\nother: {<<: *base}\n"),
        ("a.json", '{"user": "me", "p\\u0061ssword": "hush", "key": ' + json.dumps(PEM) + "}"),
        ("a.conf", f"user = me\nexport DB_PASSWORD='hush'\nApi-Key: hush\nurl = x://me:hush@h\n{PEM}"),
        ("a.ini", '[x]\nuser = me\n"token" : hush hush\n'),
    ],
)
def test_files_are_shown_without_their_secrets(name: str, text: str) -> None:
    shown = mask_text(name, text)
    assert "hush" not in shown
    assert "me" in shown
    assert MASK in shown


def test_other_text_stays_as_it_is() -> None:
    text = "# tokens are explained elsewhere\ninterval = 5\n"
    assert mask_text("a.conf", text) == text


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "a: &a\n  b: *a\n", "nested too deeply"),
        ("a.json", "[" * 990 + "]" * 990, "nested too deeply"),
        (
            "a.yaml",
            "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
            "too many values",
        ),
        ("a.toml", "a = ", "Invalid value"),
    ],
)
def test_text_too_large_to_show_is_an_error(name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mask_text(name, text)


def test_shown_text_can_be_written_as_utf_8() -> None:
    assert mask_text("a.json", '{"a": "\\ud800ü"}').encode() == '{\n  "a": "?ü"\n}'.encode()


def test_only_files_with_a_known_suffix_are_parsed() -> None:
    assert parse_document("a.conf", "a = [") is None
    assert parse_document("A.JSON", "1") == [1]
