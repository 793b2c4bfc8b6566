"""What a user sees of a wait and of a transfer, on terminals of two widths and without one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker.app.factories import open_ledger
from broker.contract.messages import Feedback, RunningProgress, Status
from broker.contract.states import FeedbackKind
from tests.acceptance.conftest import ROOT
from tests.support.recorded import record_feedback, record_status
from tests.support.terminal import Terminal

pytestmark = pytest.mark.own_ledger

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(directory: Path) -> dict[str, str]:
    return {"ACM_LEDGER": f"sqlite:///{directory}/ledger.db", "PYTHONPATH": str(ROOT), "HOME": str(directory)}


def online(directory: Path) -> None:
    with open_ledger(f"sqlite:///{directory}/ledger.db") as ledger:
        record_status(ledger, Status("web-01", True, "1", "i", "b", "g"))


@pytest.mark.parametrize("columns", [80, 40])
def test_state_phase_and_percentage_are_shown_and_ctrl_c_says_what_continues(tmp_path: Path, columns: int) -> None:
    online(tmp_path)
    argv = [sys.executable, "-m", "broker", "send", "web-01", "restart-agent", "--wait", "60"]
    terminal = Terminal(argv, tmp_path, environment(tmp_path), columns)
    terminal.read_until("queued: ")
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.claim_due(9)
        (row,) = ledger.commands()
        command_id, sequence = row.command.id, row.command.sequence
        assert sequence is not None
        begun = Feedback(FeedbackKind.PROGRESS, "web-01", "g", "i", "processing", "It runs.", command_id=command_id)
        record_feedback(ledger, "web-01", [begun])
        status = Status(
            "web-01",
            True,
            "1",
            "i",
            "b",
            "g",
            epoch=sequence.epoch,
            last_sequence=sequence.number,
            running_command=command_id,
            running_progress=RunningProgress("download", 40),
        )
        record_status(ledger, status)
        terminal.read_until("running (download 40 %)")
        terminal.type("\x03")
    assert terminal.wait() == 130
    assert f"Check it with `acm show {command_id}`" in " ".join(terminal.shown.split())
    assert "Traceback" not in terminal.shown
    lines = CONTROLS.sub("", terminal.shown.replace("^C", "")).replace("\r", "\n").split("\n")
    live = [line for line in lines if "restart-agent on" in line]
    assert all(len(line) <= columns for line in live)


@pytest.mark.parametrize("columns", [80, 40])
def test_how_much_of_a_file_is_stored_is_shown(tmp_path: Path, columns: int) -> None:
    (tmp_path / "agent.tar").write_bytes(b"x" * 3_000_000)
    argv = [sys.executable, "-m", "broker", "blob", "put", "agent.tar"]
    terminal = Terminal(argv, tmp_path, environment(tmp_path), columns)
    assert terminal.wait() == 0
    lines = CONTROLS.sub("", terminal.shown).replace("\r", "\n").split("\n")
    live = [line for line in lines if "agent.tar" in line]
    assert any("3.0/3.0 MB" in line for line in live)
    assert all(len(line) <= columns for line in live)
    assert '"size": 3000000' in terminal.shown


def test_each_change_is_a_line_without_a_terminal(tmp_path: Path) -> None:
    online(tmp_path)
    argv = [sys.executable, "-m", "broker", "send", "web-01", "restart-agent", "--wait", "0.2"]
    done = subprocess.run(argv, env={**os.environ, **environment(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert "acm: queued: restart-agent on web-01\n" in done.stderr
