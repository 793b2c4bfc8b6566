"""Names and values with bytes that are not UTF-8, which Python passes on as lone surrogates (PEP 383)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
NAME = b"caf\xe9"
TO_WEB = [b"send", b"web-01", b"restart-agent", b"--allow-unknown"]


def acm(directory: Path, *words: bytes, **environment: bytes) -> "subprocess.CompletedProcess[str]":
    inherited = {**os.environb, b"ACM_LEDGER": f"sqlite:///{directory}/ledger.db".encode()}
    given = {name.encode(): value for name, value in environment.items()}
    argv = [sys.executable.encode(), b"-m", b"broker", *words]
    return subprocess.run(argv, cwd=ROOT, env={**inherited, **given}, capture_output=True, text=True, timeout=60)


def test_file_whose_name_is_not_utf_8_is_stored(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/" + NAME
    Path(os.fsdecode(file)).write_text("x = 1\n")
    stored = acm(tmp_path, b"blob", b"put", file)
    assert stored.returncode == 0, stored.stderr
    (listed,) = json.loads(acm(tmp_path, b"blob", b"list", b"--json").stdout)
    assert listed["file_name"] == r"caf\udce9"
    words = [b"send", b"web-01", b"apply-centralized-configuration", b"--allow-unknown", b"--file", b"artifact=" + file]
    sent = acm(tmp_path, *words)
    assert sent.returncode == 0, sent.stderr


def test_user_whose_name_is_not_utf_8_sends_commands(tmp_path: Path) -> None:
    sent = acm(tmp_path, *TO_WEB, b"--json", LOGNAME=b"\xff\xfe")
    assert sent.returncode == 0, sent.stderr
    assert json.loads(sent.stdout)["commands"][0]["command"]["origin"]["name"].startswith(r"\udcff\udcfe@")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([b"send", b"web-01", NAME, b"--allow-unknown"], 2),
        ([*TO_WEB, NAME + b"=x"], 2),
        ([*TO_WEB, b"x=" + NAME], 2),
        ([*TO_WEB, b'x="\\ud800"'], 2),
        ([*TO_WEB, b"--parameters", b'{"x": "' + NAME + b'"}'], 2),
        ([*TO_WEB, b"--file", NAME + b"=/dev/null"], 2),
        ([b"send", NAME, b"restart-agent", b"--allow-unknown"], 2),
        ([b"show", NAME], 2),
        ([b"commands", b"--operation", NAME], 2),
        ([b"operation", b"cancel", NAME], 2),
        ([b"blob", b"rm", NAME], 2),
        ([b"token", b"revoke", NAME], 2),
    ],
)
def test_argument_that_is_not_utf_8_is_one_sentence(tmp_path: Path, words: list[bytes], code: int) -> None:
    assert acm(tmp_path, *TO_WEB).returncode == 0
    done = acm(tmp_path, *words)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert done.stderr.startswith("acm: ")
