import os
import pty
import signal
import sys
from collections.abc import Callable

import pytest

from broker.system.questions import ask, ask_secret
from tests.acceptance.conftest import ROOT
from tests.support.terminal import Terminal
from tests.support.waiting import wait_for

ASK = "import sys; from broker.system.questions import {0}; print(repr({0}('Why?')))"
_ENDED_BY_INT = 7


def asked(question: str) -> Terminal:
    terminal = Terminal([sys.executable, "-c", ASK.format(question)], ROOT)
    terminal.read_until("Why?")
    return terminal


def test_answer_is_the_line_without_its_end() -> None:
    terminal = asked("ask")
    terminal.type("because\n")
    assert terminal.wait() == 0
    assert "'because'" in terminal.shown


@pytest.mark.parametrize("question", ["ask", "ask_secret"])
def test_end_of_the_input_is_an_empty_answer_on_a_new_line(question: str) -> None:
    terminal = asked(question)
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert "\r\n''" in terminal.shown


def test_secret_is_not_shown_while_it_is_typed() -> None:
    terminal = asked("ask_secret")
    terminal.type("hidden\n")
    assert terminal.wait() == 0
    assert terminal.shown.count("hidden") == 1  # what the program printed


def test_terminal_shows_what_is_typed_again_after_a_secret() -> None:
    program = f'{sys.executable} -c "{ASK.format("ask_secret")}"'
    terminal = Terminal(["sh", "-c", f"trap : INT; stty echo; {program}; stty -a"], ROOT)
    terminal.read_until("Why?")
    terminal.type("\x03")
    terminal.wait()
    assert " echo " in terminal.shown


@pytest.mark.parametrize("question", [ask, ask_secret])
def test_ctrl_c_ends_a_question_at_every_moment(question: Callable[[str], str]) -> None:
    for _ in range(200):  # input() missed it in one of fifty
        child, screen = pty.fork()
        if child == 0:
            _answer_with_exit_code(question)
        shown = b""
        while b"Why?" not in shown:
            shown += os.read(screen, 64)
        os.write(screen, b"\x03")
        wait_for(lambda child=child: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT), "its end")
        _, status = os.waitpid(child, 0)
        os.close(screen)
        assert os.waitstatus_to_exitcode(status) == _ENDED_BY_INT


def _answer_with_exit_code(question: Callable[[str], str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stderr = os.fdopen(0), os.fdopen(2, "w")
    try:
        question("Why?")
    except KeyboardInterrupt:
        os._exit(_ENDED_BY_INT)
    os._exit(1)
