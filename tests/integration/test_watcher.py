"""The launcher and the watcher as real processes, on small programs in the place of the new release."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.upgrade.installation import Installation
from consumer.upgrade.trial import TrialState, UpgradeTrial
from scripts.release import write_program
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
OLD = f"""#!{sys.executable} -I
import sys
from pathlib import Path

sys.path.insert(0, {str(ROOT)!r})
from consumer.cli.main import main

if sys.argv[1] == "watch-upgrade":
    main()
Path({{notes!r}}).open("a").write("old " + " ".join(sys.argv[1:]) + "\\n")
"""
NEW = """#!/bin/sh
if [ "${{ACM_WATCHED-}}" ]; then
    echo $$ >>{notes}
    {on_trial}
fi
echo "new $*" >>{notes}
"""
PROVED = "sed -i s/on_trial/proved/ {root}/trial.json; exit 0"


class House:
    """An installation with two releases, the newer one on trial."""

    def __init__(self, directory: Path) -> None:
        self.installation = Installation(directory / "root")
        self.notes = directory / "notes"
        self.programs: list[subprocess.Popen[str]] = []
        self.installation.make()
        write_program(self._made("1.0.0"), OLD.format(notes=str(self.notes)))
        self.installation.switch_to("1.0.0")

    def _made(self, version: str) -> Path:
        release = self.installation.release(version)
        release.mkdir()
        return release

    def try_out(self, on_trial: str, watch_s: float = 30.0) -> None:
        text = on_trial.format(root=self.installation.root)
        write_program(self._made("1.1.0"), NEW.format(notes=self.notes, on_trial=text))
        self.installation.begin_trial(UpgradeTrial("c", "1.0.0", "1.1.0", watch_s))

    def start(self) -> subprocess.Popen[str]:
        argv = [str(self.installation.launcher), "run", "--fast"]
        self.programs.append(subprocess.Popen(argv, stderr=subprocess.PIPE, text=True))
        return self.programs[-1]

    def said(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def settled(self) -> tuple[TrialState, str | None, bool]:
        trial = self.installation.trial()
        assert trial is not None
        return trial.state, self.installation.current, (self.installation.root / "watcher").is_symlink()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    for program in house.programs:
        if program.poll() is None:
            program.kill()
        program.communicate()


def test_without_a_trial_the_launcher_runs_the_current_release(house: House) -> None:
    house.start().wait(20)
    assert house.said() == ["old run --fast"]


def test_proved_release_replaces_the_watcher(house: House) -> None:
    house.try_out(PROVED)
    agent = house.start()
    assert agent.wait(20) == 0
    assert house.said()[1:] == ["new run --fast"]
    assert house.settled() == (TrialState.PROVED, "1.1.0", True)


def test_proved_release_that_ends_again_and_again_is_rolled_back(house: House) -> None:
    house.try_out(PROVED)
    for _ in range(3):
        house.start().wait(20)
    assert house.said()[1:] == ["new run --fast"] * 3
    house.start().wait(20)
    assert house.said()[4:] == ["old run --fast"]
    assert house.settled() == (TrialState.FAILED, "1.0.0", False)
    trial = house.installation.trial()
    assert trial is not None
    assert trial.reason == "it had proved itself, but then ended 3 times before it had run for some minutes"


def test_older_release_that_proved_itself_is_not_watched(house: House) -> None:
    house.try_out(PROVED)
    trial = house.installation.trial()
    assert trial is not None
    write_program(house._made("1.2.0"), OLD.format(notes=str(house.notes)))
    house.installation.begin_trial(replace(trial, old="1.2.0"))
    house.start().wait(20)
    assert house.said()[1:] == ["new run --fast"]
    assert house.settled() == (TrialState.PROVED, "1.1.0", False)


def test_directory_in_the_place_of_the_record_does_not_stop_the_old_release(house: House) -> None:
    house.try_out("exit 1")
    house.installation.switch_to("1.1.0")
    (house.installation.root / "trial.json").unlink()
    (house.installation.root / "trial.json").mkdir()
    house.start().wait(20)
    assert (house.said(), house.installation.current) == (["old run --fast"], "1.0.0")


@pytest.mark.parametrize("record", [b"", b"{", None])
def test_without_a_readable_record_the_old_release_runs(house: House, record: bytes | None) -> None:
    house.try_out("exit 1")
    house.installation.switch_to("1.1.0")
    path = house.installation.root / "trial.json"
    path.unlink() if record is None else path.write_bytes(record)
    house.start().wait(20)
    assert house.said() == ["old run --fast"]
    assert (house.installation.current, house.installation.watcher, house.installation.trial()) == ("1.0.0", None, None)
    assert (house.installation.root / "trial.damaged").exists() == (record is not None)


def test_last_lines_of_a_failed_release_are_in_the_record_and_on_stderr(house: House) -> None:
    house.try_out("echo 'no module named yaml' >&2; echo password=hush >&2; exit 7")
    stderr = house.start().communicate(timeout=20)[1]
    assert stderr.count("no module named yaml") == 3
    trial = house.installation.trial()
    assert trial is not None
    assert trial.stderr == "no module named yaml\npassword=********\n"


def test_crashing_release_is_rolled_back(house: House) -> None:
    house.try_out("kill -SEGV $$")
    house.start().wait(20)
    assert house.said()[3:] == ["old run --fast"]
    assert house.settled() == (TrialState.FAILED, "1.0.0", False)
    trial = house.installation.trial()
    assert trial is not None
    assert trial.reason == "it was started 3 times and did not prove itself; the last time it was ended by SIGSEGV"


def test_hanging_release_is_ended_and_rolled_back(house: House) -> None:
    house.try_out("exec sleep 600", watch_s=0.1)
    house.start().wait(20)
    assert house.said()[1:] == ["old run --fast"]
    trial = house.installation.trial()
    assert trial is not None
    assert trial.reason == "it did not prove itself within 0.1 s, and it was ended by SIGTERM"


def test_unstartable_release_is_rolled_back(house: House) -> None:
    house.try_out("exit 1")
    house.installation.program("1.1.0").unlink()
    house.start().wait(20)
    assert house.said() == ["old run --fast"]
    assert house.settled() == (TrialState.FAILED, "1.0.0", False)


@pytest.mark.parametrize(("state", "goes_on"), [(TrialState.PROVED, "new"), (TrialState.FAILED, "old")])
def test_decision_before_a_kill_is_carried_out_afterwards(house: House, state: TrialState, goes_on: str) -> None:
    house.try_out("exit 1")
    trial = UpgradeTrial("c", "1.0.0", "1.1.0", 30.0, state)
    house.installation.keep(trial)
    house.installation.switch_to("1.1.0")
    house.start().wait(20)
    assert house.said() == [f"{goes_on} run --fast"]
    assert house.settled() == (state, trial.new if goes_on == "new" else trial.old, goes_on == "new")


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_trial_continues_after_its_watcher_was_killed(house: House, number: signal.Signals, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    house.try_out(f"while [ ! -e {gate} ]; do sleep 0.05; done; {PROVED}")
    watcher = house.start()
    child = int(wait_for(lambda: house.said(), "the new release to run")[0])
    second = house.start()
    assert "another process watches it" in second.communicate(timeout=20)[1]
    os.kill(watcher.pid, number)
    assert watcher.wait(20) == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    wait_for(lambda: ended(child), "the new release to end")
    assert house.settled() == (TrialState.ON_TRIAL, "1.1.0", True)
    gate.touch()
    house.start().wait(20)
    assert house.said()[2:] == ["new run --fast"]
    assert house.settled() == (TrialState.PROVED, "1.1.0", True)


def test_without_the_old_release_the_launcher_runs_the_current_one(house: House) -> None:
    house.try_out("exit 1")
    house.installation.switch_to("1.1.0")
    house.installation.program("1.0.0").unlink()
    house.start().wait(20)
    assert house.said() == ["new run --fast"]
