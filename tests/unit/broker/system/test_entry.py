"""What a program's command line leaves behind for its caller."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
PROGRAM = '''
from broker.system.entry import run_command_line

INTERRUPTED = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
while True:
    pass
"""

run_command_line("acm", lambda: exec(INTERRUPTED), lambda error: 1, services=())
'''


def test_interrupt_in_code_that_python_compiles_has_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    ended = subprocess.run(
        [sys.executable, "-m", "program"], env=environment, capture_output=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, b"")
