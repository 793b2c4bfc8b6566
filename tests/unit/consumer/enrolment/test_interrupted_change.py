"""kill -9 at each step of a change of the enrolment: the current certificate always has its key."""

import subprocess
import sys
from pathlib import Path

from broker.mqtt.tls import client_context
from consumer.enrolment.store import EnrolmentDirectory
from tests.support.enrolled import Registrar

ROOT = Path(__file__).resolve().parents[4]
CHANGE = """
import os, signal, sys
from pathlib import Path
from consumer.enrolment.keys import read_key
from consumer.enrolment.store import CertifiedGrant, EnrolmentDirectory
state, source, killed_at = Path(sys.argv[1]), EnrolmentDirectory(Path(sys.argv[2])).current(), int(sys.argv[3])
renames = 0
def count(event, arguments):
    global renames
    renames += event == "os.rename"
    if killed_at and renames == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
files, enrolments = source.tls, EnrolmentDirectory(state)
granted = CertifiedGrant(source.grant, source.directory.name, files.certificate.read_text(), files.ca.read_text())
state.mkdir(mode=0o700, exist_ok=True)
enrolments.add(granted, read_key(files.key))
enrolments.make_current(granted.name)
"""


def change(state: Path, source: Path, killed_at: int = 0) -> int:
    argv = [sys.executable, "-c", CHANGE, str(state), str(source), str(killed_at)]
    return subprocess.run(argv, cwd=ROOT, check=False, timeout=60).returncode


def test_current_certificate_has_its_key_after_kill_9(tmp_path: Path) -> None:
    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db")
    for name in ("before", "after"):
        registrar.enroll("web-01", tmp_path / name, "mqtt://127.0.0.1")
    step = 0
    while True:
        step += 1
        state = tmp_path / str(step)
        assert change(state, tmp_path / "before") == 0
        ended = change(state, tmp_path / "after", killed_at=step) == 0
        for is_repeated in (False, True):
            current = EnrolmentDirectory(state).current()
            assert current is not None
            client_context(current.tls)
            if not is_repeated:
                assert change(state, tmp_path / "after") == 0
        after = EnrolmentDirectory(tmp_path / "after").current()
        assert after is not None
        assert current.directory.name == after.directory.name
        if ended:
            break
    assert step > 5
