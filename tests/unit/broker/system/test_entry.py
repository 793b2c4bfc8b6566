"""What a program's command line leaves behind for its caller."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
COMPILED = '''
from broker.system.entry import run_command_line

INTERRUPTED = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
while True:
    pass
"""

run_command_line("acm", lambda: exec(INTERRUPTED), lambda error: 1, services=())
'''
FREED = """
import os, signal, sys
from broker.system.entry import run_command_line

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

def run():
    Interrupted()
    signal.pause()

run_command_line("acm", run, lambda error: 1, services=())
"""
FAILED_ELSEWHERE = """
from broker.system.entry import run_command_line

class Failing:
    def __del__(self):
        raise ValueError("a fault of the program")

run_command_line("acm", lambda: Failing() and None, lambda error: 1, services=())
"""


def run(directory: Path, program: str) -> "subprocess.CompletedProcess[str]":
    (directory / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{directory}"}
    argv = [sys.executable, "-m", "program"]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("program", [COMPILED, FREED], ids=["compiled", "freed"])
def test_interrupt_in_code_that_python_runs_by_itself_has_its_exit_code(tmp_path: Path, program: str) -> None:
    ended = run(tmp_path, program)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_fault_while_an_object_is_freed_is_shown(tmp_path: Path) -> None:
    assert "a fault of the program" in run(tmp_path, FAILED_ELSEWHERE).stderr
