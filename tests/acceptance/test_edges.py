"""Every command of acm and acm-agent where outputs fail, arguments are no text, the locale is odd, and INT comes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.acceptance.conftest import ROOT
from tests.support.every_command import STATE, Site, make_site
from tests.support.forked import Call, Ended, ForkedCommands, Stdout
from tests.support.terminal import Terminal
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.own_ledger,
    pytest.mark.timeout(300),  # on a machine that does much else; some 10 s for each test otherwise
]
ODD_LOCALE = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
NO_TEXT = "\udcff\udcfe"  # as the interpreter passes on b"\xff\xfe"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("edges"))


def assert_calm(call: Call, ended: Ended) -> None:
    """Assert that a call has ended with an exit code that is documented, and without a traceback."""
    assert "Traceback" not in ended.stderr, (call, ended.stderr)
    assert "Exception ignored" not in ended.stderr, (call, ended.stderr)
    assert ended.code in (*range(11), 130), (call, ended)


@pytest.mark.parametrize(("stdout", "sentences"), [(Stdout.FULL, 1), (Stdout.CLOSED_PIPE, 0)])
def test_output_that_cannot_be_written_is_one_sentence_or_none(site: Site, stdout: Stdout, sentences: int) -> None:
    failed = 0
    with ForkedCommands(site.directory, site.environment) as commands:
        for call in site.calls().values():
            ended = commands.run(replace(call, stdout=stdout))
            assert_calm(call, ended)
            if ended.code == 8:
                failed += 1
                assert ended.stderr.count("The output cannot be written") == sentences, (call, ended)
    assert failed > 40


def test_locale_without_letters_is_no_traceback(site: Site) -> None:
    with ForkedCommands(site.directory, {**site.environment, **ODD_LOCALE}) as commands:
        for call in site.calls().values():
            assert_calm(call, commands.run(call))


def test_arguments_that_are_no_text_are_no_traceback(site: Site) -> None:
    with ForkedCommands(site.directory, site.environment) as commands:
        for call in site.calls_with(NO_TEXT).values():
            assert_calm(call, commands.run(call))


def test_interruption_at_any_call_of_a_function_is_no_traceback(site: Site) -> None:
    codes = set()
    with ForkedCommands(site.directory, site.environment) as commands:
        for number, call in enumerate(site.calls().values()):
            ended = commands.run(replace(call, interrupted_at=50 + 7 * number**2))
            assert_calm(call, ended)
            codes.add(ended.code)
    assert 130 in codes


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_ctrl_c_at_a_question_sends_nothing(site: Site, option: list[str]) -> None:
    argv = [sys.executable, "-m", "broker", "send", "web-*", "restart-agent", *option]
    terminal = Terminal(argv, site.directory, {**site.environment, "PYTHONPATH": str(ROOT)})
    terminal.read_until("Send restart-agent to ")
    terminal.type("\x03")
    assert terminal.wait() == 1
    assert "Nothing was sent." in terminal.shown
    assert "Traceback" not in terminal.shown


def start(directory: Path, *arguments: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "consumer", *arguments, "--state", STATE]
    return subprocess.Popen(
        argv, cwd=directory, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def handles(pid: int) -> bool:
    (mask,) = re.findall(r"SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) & (1 << (signal.SIGTERM - 1)))


def moments(directory: Path, name: str) -> Iterator[float]:
    """Yield some moments (seconds) of a whole run."""
    began = monotonic()
    start(directory, name).communicate(timeout=60)
    whole = monotonic() - began
    yield from (whole * part for part in (0.0, 0.3, 0.6, 0.9))


@pytest.mark.parametrize("name", ["status", "doctor", "queue"])
def test_interruption_while_a_program_is_loaded_is_no_traceback(site: Site, name: str) -> None:
    codes = set()
    for moment in moments(site.directory, name):
        running = start(site.directory, name)
        wait_for(lambda running=running: handles(running.pid), "the first line of ours")
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(moment)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        assert "Traceback" not in said
        codes.add(running.returncode)
    assert codes <= {0, 10, 130}
    assert 130 in codes


def test_version_and_short_help() -> None:
    for words in (["--version"], ["-h"], ["status", "-h"]):
        done = subprocess.run([sys.executable, "-m", "consumer", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0
        assert ("acm-agent 0." if words == ["--version"] else "Usage: ") in done.stdout
