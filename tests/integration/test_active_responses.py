"""Active responses with real scripts: the dialogue, the durable reversals, and scripts that do not behave."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.contract.commands.execute_active_response import ExecuteActiveResponse
from broker.contract.messages import JsonObject
from broker.contract.states import ErrorCode, State
from consumer.active_response.protected_targets import ProtectedTargets
from consumer.active_response.records import ResponseRecord, read_pending
from consumer.active_response.responses import ActiveResponses
from consumer.errors import ActiveResponseError, StoreError
from consumer.handler import Context, Result
from consumer.handlers.execute_active_response import handler
from consumer.observer import LogObserver
from consumer.ports import Clock, StoredCommand
from consumer.services import NoService
from consumer.settings import ActiveResponseConfig, ServiceConfig
from consumer.system.clock import Boot, SystemClock
from tests.support.active_response_scripts import BAD, PYTHON, SHELL, STATELESS, TOLERATED, install
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, command
from tests.support.waiting import wait_for

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def alert(key: str = "5763") -> JsonObject:
    return {"rule": {"id": key, "level": 10}, "full_log": 'a "quoted" \\ line\nand more'}


class Machine:
    """A machine with scripts; `responses` are those of an agent that `restart` replaces by the next one."""

    def __init__(self, directory: Path, clock: Clock, **settings: Any) -> None:
        self.bin, self.state, self.clock = directory / "bin", directory / "state", clock
        lines = []
        for name, text in {"python": PYTHON, "shell": SHELL, "stateless": STATELESS, **BAD, **TOLERATED}.items():
            install(self.bin, name, text)
            lines.append(f"{name} - {name} - {0 if name == 'stateless' else 60}")
        lines.append("python-long - python - 600")
        self.allow_list = directory / "allow-list"
        self.allow_list.write_text("\n".join(lines))
        os.chmod(self.allow_list, 0o644)
        self.config = ActiveResponseConfig(str(self.bin), str(self.allow_list), **settings)
        self.sent = 0
        self.restart()

    def restart(self, boot_id: str = "boot-1") -> None:
        self.responses = ActiveResponses(
            self.config,
            self.state,
            self.clock,
            LogObserver(),
            boot=Boot(boot_id, self.clock.monotonic),
            spawn=lambda work: work(),
            wake=lambda: None,
            protected=ProtectedTargets({"the broker": "localhost"}, ["198.51.100.0/24"], ["nobody"]),
        )

    def context(self) -> Context:
        deadline = self.clock.monotonic() + 60
        return Context(self.clock, NoService(), self.state, deadline=deadline)

    def send(self, script: str, key: str = "5763", *, cancelled: threading.Event | None = None, **given: Any) -> Result:
        self.sent += 1
        context = self.context()
        if cancelled is not None:
            context = replace(context, cancelled=cancelled)
        parameters = ExecuteActiveResponse(script, alert(key), ("--fast",), **given)
        done = handler(self.responses, ServiceConfig()).execute(command(f"c{self.sent}"), parameters, context)
        assert isinstance(done, Result)
        return done

    def probe(self) -> Result:
        probe = handler(self.responses, ServiceConfig()).probe
        assert probe is not None
        sent = replace(command(f"c{self.sent}"), parameters={"script": "python"})
        done = probe(StoredCommand("c/1", sent, State.PROCESSING, NOW, NOW, "i0"), self.context())
        assert isinstance(done, Result)
        return done

    def turn(self, seconds: float) -> None:
        assert isinstance(self.clock, TurnedClock)
        self.clock.turn(seconds)
        self.responses.reversals.step()

    @property
    def journal(self) -> list[str]:
        path = self.state / "home" / "journal"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def pending(self) -> list[tuple[str, tuple[str, ...], str]]:
        return [(it.script, it.keys, it.state) for it in self.responses.pending()]


@pytest.fixture
def machine(tmp_path: Path, clock: TurnedClock) -> Machine:
    return Machine(tmp_path, clock)


@pytest.fixture
def impatient(tmp_path: Path) -> Machine:
    return Machine(tmp_path, SystemClock(), script_deadline_s=0.5)


@pytest.mark.parametrize("script", ["python", "shell"])
def test_effect_is_added_and_reversed_after_the_timeout(machine: Machine, script: str) -> None:
    done = machine.send(script)
    assert (done.code, done.data.state, done.data.keys, done.data.exit_status) == (None, "active", ("5763",), 0)
    assert "is active for 5763 until 2026-01-01 00:17:40 UTC" in done.message
    assert machine.pending == [(script, ("5763",), "waiting")]
    machine.turn(59.9)
    assert machine.journal == ["add 5763"]
    machine.turn(0.2)
    assert machine.journal == ["add 5763", "delete 5763"]
    assert machine.pending == []
    machine.turn(600)
    assert machine.journal == ["add 5763", "delete 5763"]
    log = (machine.state / "home" / "logs" / "active-responses.log").read_text().splitlines()
    assert log == [f"active-response/bin/{script}: {word}" for word in ("add", "delete")]


@pytest.mark.parametrize("script", ["python", "shell"])
def test_keys_that_are_active_abort_the_script_and_renew_the_timer(machine: Machine, script: str) -> None:
    machine.send(script)
    machine.turn(50)
    again = machine.send(script)
    assert (again.code, again.data.state) == (None, "renewed")
    machine.send(script, "other")
    machine.turn(50)
    assert machine.journal == ["add 5763", "aborted 5763", "add other"]
    machine.turn(11)
    assert machine.journal[3:] == ["delete 5763", "delete other"]


def test_two_names_of_one_executable_share_its_keys(machine: Machine) -> None:
    machine.send("python")
    assert machine.send("python-long").data.state == "renewed"
    machine.turn(61)
    assert machine.journal == ["add 5763", "aborted 5763"]


def test_the_messages_are_those_of_wazuh(machine: Machine) -> None:
    done = machine.send("stateless")
    assert (done.code, done.data.state, done.data.reverses_at) == (None, "done", None)
    assert done.output is not None
    assert done.output.stderr == "done\n"
    (line,) = machine.journal
    assert msgspec.json.decode(line) == {
        "version": 1,
        "origin": {"name": "n", "module": "wazuh-execd"},
        "command": "add",
        "parameters": {
            "extra_args": ["--fast"],
            "alert": alert(),
            "program": "active-response/bin/stateless",
        },
    }
    assert '"command":"add"' in line
    assert list(msgspec.json.decode(line)) == ["version", "origin", "command", "parameters"]


def test_a_stateless_script_is_never_run_again(machine: Machine) -> None:
    assert "named no keys, so nothing will be reversed" in machine.send("stateless", timeout_s=5).message
    machine.turn(10)
    assert len(machine.journal) == 1


def test_the_timeout_of_the_command_outranks_that_of_the_allow_list(machine: Machine) -> None:
    machine.send("python", timeout_s=5)
    machine.turn(6)
    assert machine.journal == ["add 5763", "delete 5763"]


def test_without_a_timeout_the_effect_stays_and_a_pending_reversal_is_called_off(machine: Machine) -> None:
    machine.send("python")
    done = machine.send("python", timeout_s=0)
    assert (done.data.state, done.data.reverses_at) == ("done", None)
    machine.turn(100)
    assert machine.journal == ["add 5763", "aborted 5763"]
    assert machine.pending == []


def test_repeated_offenders_have_longer_timeouts_across_restarts(tmp_path: Path, clock: TurnedClock) -> None:
    machine = Machine(tmp_path, clock, repeated_offenders=(10, 20))
    for offence, seconds in ((1, 60), (2, 600), (3, 1200), (4, 1200)):
        done = machine.send("python")
        assert done.data.offence == offence
        assert (done.data.reverses_at - clock.now()).total_seconds() == seconds
        machine.turn(seconds)
        assert machine.journal[-1] == "delete 5763"
        machine.restart()
    assert machine.send("python", "other").data.offence == 1


def test_an_offence_is_forgotten_after_a_week(tmp_path: Path, clock: TurnedClock) -> None:
    machine = Machine(tmp_path, clock, repeated_offenders=(10,))
    machine.send("python")
    machine.turn(60)
    machine.turn(7 * 86400 + 1)
    assert machine.send("python").data.offence == 1


def test_a_renewal_counts_as_an_offence(tmp_path: Path, clock: TurnedClock) -> None:
    machine = Machine(tmp_path, clock, repeated_offenders=(10,))
    machine.send("python")
    renewed = machine.send("python")
    assert (renewed.data.state, renewed.data.offence) == ("renewed", 2)
    assert (renewed.data.reverses_at - clock.now()).total_seconds() == 600


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("exits-3", ErrorCode.FAILED, "exits-3 ended with exit status 3 before it received `continue`"),
        ("silent", ErrorCode.TIMED_OUT, "silent did not end in time and was stopped before it received `continue`"),
        ("reads-all", ErrorCode.TIMED_OUT, "a script must not read its input to the end before it answers."),
    ],
)
def test_failure_before_continue_leaves_nothing_pending(
    impatient: Machine, script: str, code: ErrorCode, said: str
) -> None:
    done = impatient.send(script)
    assert (done.code, done.data.state) == (code, "not_added")
    assert said in done.message
    assert impatient.pending == []
    assert impatient.send("stateless").code is None


def test_exit_status_and_stderr_are_in_the_result(machine: Machine) -> None:
    done = machine.send("exits-3")
    assert done.data.exit_status == 3
    assert done.output is not None
    assert done.output.stderr == "no firewall here\n"


def test_script_that_ignores_term_is_killed(impatient: Machine) -> None:
    done = impatient.send("ignores-term")
    assert (done.code, done.data.exit_status) == (ErrorCode.TIMED_OUT, -9)


def test_a_cancelled_script_is_ended(machine: Machine) -> None:
    cancelled = threading.Event()
    cancelled.set()
    assert machine.send("silent", cancelled=cancelled).code is ErrorCode.CANCELLED


@pytest.mark.parametrize("script", TOLERATED)
def test_script_that_execd_tolerates_is_run_to_its_end_and_reversed(machine: Machine, script: str) -> None:
    done = machine.send(script)
    assert (done.code, done.data.exit_status) == (None, 0), done.message
    reverses = done.data.state == "active"
    assert reverses == (script != "reads-the-rest-silently")
    machine.turn(61)
    assert machine.journal == ["add", "delete"][: 1 + reverses]
    assert machine.pending == []
    if script == "leaves-a-daemon":
        for daemon in (machine.state / "home" / "daemons").read_text().split():
            os.kill(int(daemon), signal.SIGKILL)  # which fails unless it still runs


def test_first_line_that_is_no_check_keys_message_makes_the_executable_the_key(machine: Machine) -> None:
    done = machine.send("greets")
    assert done.data.keys == ("greets",)
    assert done.output is not None
    assert done.output.stdout == "got an alert\n"
    assert '"command":"continue"' in (machine.state / "home" / "answer").read_text()
    assert machine.send("greets").data.state == "renewed"
    assert '"command":"abort"' in (machine.state / "home" / "answer").read_text()


def test_reversal_by_a_script_with_carriage_returns_names_them(machine: Machine) -> None:
    machine.send("greets")
    install(machine.bin, "greets", "#!/bin/sh\r\nread -r REQUEST\r\n")
    machine.turn(61)
    (entry,) = read_pending(machine.state)
    assert entry.reversal is not None
    assert r"the interpreter '/bin/sh\r'" in (entry.reversal.failure or "")


@pytest.mark.parametrize(
    ("script", "code", "keys"),
    [
        ("fails-later", ErrorCode.FAILED, ("k",)),
        ("floods-later", ErrorCode.TIMED_OUT, ("k",)),
        ("floods", ErrorCode.TIMED_OUT, ("floods",)),
        ("floods-lines", ErrorCode.TIMED_OUT, ("floods-lines",)),
    ],
)
def test_failure_after_continue_schedules_a_reversal(
    impatient: Machine, script: str, code: ErrorCode, keys: tuple[str, ...]
) -> None:
    done = impatient.send(script)
    assert (done.code, done.data.state) == (code, "uncertain")
    assert "its possible effect is reversed at" in done.message
    assert impatient.pending == [(script, keys, "waiting")]


def test_uncertain_effect_does_not_prevent_the_next_attempt(machine: Machine) -> None:
    machine.send("fails-later")
    again = machine.send("fails-later")
    assert (again.data.state, again.data.offence) == ("uncertain", 1)


def test_overdue_reversal_runs_once_at_the_next_start(machine: Machine) -> None:
    machine.send("python")
    machine.clock.turn(1000)  # type: ignore[attr-defined] - the agent is dead meanwhile
    machine.restart()
    machine.turn(0)
    machine.restart()
    machine.turn(0)
    assert machine.journal == ["add 5763", "delete 5763"]


def test_effect_is_repeated_after_a_reboot_and_still_reversed(machine: Machine) -> None:
    machine.send("python")
    machine.restart(boot_id="boot-2")
    assert machine.pending == [("python", ("5763",), "waiting")]
    assert machine.send("python").data.state == "active"
    machine.turn(61)
    assert machine.journal == ["add 5763", "add 5763", "delete 5763"]


@pytest.mark.parametrize("ahead_s", [-86400.0, 365 * 86400.0])
@pytest.mark.parametrize("restarts", [False, True])
def test_clock_that_is_set_does_not_move_a_reversal(
    machine: Machine, clock: TurnedClock, ahead_s: float, restarts: bool
) -> None:
    machine.send("python")
    clock.set_wall(ahead_s)
    if restarts:
        machine.restart()
    machine.turn(59)
    assert machine.journal == ["add 5763"]
    machine.turn(2)
    assert machine.journal == ["add 5763", "delete 5763"]


def test_retry_of_a_reversal_is_not_moved_by_a_clock_that_is_set(machine: Machine, clock: TurnedClock) -> None:
    machine.send("delete-fails")
    machine.turn(60)
    clock.set_wall(-86400.0)
    machine.turn(4)
    assert machine.journal == ["tried"]
    machine.turn(2)
    assert machine.journal == ["tried"] * 2


def test_clock_that_was_ahead_before_a_reboot_keeps_no_effect_longer_than_its_timeout(
    machine: Machine, clock: TurnedClock
) -> None:
    clock.set_wall(365 * 86400.0)
    machine.send("python")
    clock.set_wall(0.0)
    machine.restart(boot_id="boot-2")
    machine.turn(59)
    assert machine.journal == ["add 5763"]
    machine.turn(2)
    assert machine.journal == ["add 5763", "delete 5763"]


def test_failed_reversal_is_retried_reported_and_retried_at_start(machine: Machine) -> None:
    machine.send("delete-fails")
    machine.turn(60)
    for wait_s in (5, 30, 180, 900):
        assert machine.pending == [("delete-fails", ("k",), "waiting")]
        assert machine.responses.failure is None
        machine.turn(wait_s)
    assert machine.journal == ["tried"] * 5
    assert machine.pending == [("delete-fails", ("k",), "failed")]
    assert machine.responses.failure is not None
    assert "(k) was not reversed in 5 attempts" in machine.responses.failure
    assert "ended with exit status 4: still there" in machine.responses.failure
    machine.turn(86400)
    assert len(machine.journal) == 5
    machine.restart()
    install(machine.bin, "delete-fails", PYTHON)
    machine.turn(0)
    assert machine.pending == []
    assert machine.responses.failure is None


def test_hanging_reversal_is_ended(tmp_path: Path) -> None:
    machine = Machine(tmp_path, SystemClock())
    assert machine.send("python", timeout_s=0.01).code is None
    install(machine.bin, "python", BAD["silent"])
    machine.config = msgspec.structs.replace(machine.config, script_deadline_s=0.3)
    machine.restart()
    reversals = machine.responses.reversals
    wait_for(lambda: (due := reversals.next_due()) and due <= machine.clock.monotonic(), "the reversal to be due")
    reversals.step()
    (entry,) = read_pending(machine.state)
    assert entry.reversal is not None
    assert (entry.reversal.attempts, entry.reversal.failure) == (1, "The script did not end in time and was stopped.")


def test_reversal_with_a_missing_script_fails(machine: Machine) -> None:
    machine.send("python")
    (machine.bin / "python").unlink()
    machine.turn(60)
    (entry,) = read_pending(machine.state)
    assert entry.reversal is not None
    assert "cannot be used" in (entry.reversal.failure or "")


def test_next_due_is_the_soonest_reversal(machine: Machine) -> None:
    assert machine.responses.reversals.next_due() is None
    machine.send("python", "a", timeout_s=30)
    machine.send("python", "b", timeout_s=20)
    assert machine.responses.reversals.next_due() == machine.clock.monotonic() + 20
    assert [it.keys for it in machine.responses.pending()] == [("b",), ("a",)]


def test_status_shows_fifty_reversals_with_truncated_keys(machine: Machine) -> None:
    keep: Callable[[ResponseRecord], ResponseRecord] = machine.responses._records.save
    machine.send("python", "x" * 500)
    (entry,) = read_pending(machine.state)
    for number in range(60):
        keep(replace(entry, keys=(f"{number}",)))
    assert (len(machine.responses.pending()), machine.responses.pending_count) == (50, 61)
    keep(replace(entry, keys=("\U0001f600" * 200,) * 16, reversal=replace(_reversal(entry), due_at=LONG_AGO)))
    assert all(len(key) == 120 for key in machine.responses.pending()[0].keys)
    assert len(machine.responses.pending()[0].keys) == 8


def _reversal(entry: ResponseRecord) -> Any:
    assert entry.reversal is not None
    return entry.reversal


def test_damaged_record_is_renamed_and_reported(machine: Machine) -> None:
    machine.send("python")
    (record,) = machine.state.glob("*.json")
    record.write_text("{")
    machine.restart()
    assert machine.pending == []
    assert record.with_suffix(".damaged").exists()
    assert record.stem in (machine.responses.failure or "")


def test_record_that_cannot_be_read_is_reported_and_kept_for_a_later_start(machine: Machine) -> None:
    machine.send("python")
    machine.send("shell", "5764")
    record = next(machine.state.glob("*.json"))
    content = record.read_bytes()
    record.unlink()
    record.symlink_to(record.name)  # a loop: it is there, and cannot be read
    (machine.state / "runs" / "of-a-record").mkdir(parents=True)
    machine.restart()
    assert (len(machine.pending), record.name in (machine.responses.failure or "")) == (1, True)
    assert (machine.state / "runs" / "of-a-record").exists()
    record.unlink()
    record.write_bytes(content)
    machine.restart()
    assert (len(machine.pending), machine.responses.failure) == (2, None)


def test_script_does_not_act_if_its_record_cannot_be_written(machine: Machine) -> None:
    record = ResponseRecord("python", "python", ("5763",), "c", "active", NOW, "b")
    (machine.state / f"{record.name}.json").mkdir()
    with raises_code(StoreError, "file_unwritable"):
        machine.send("python")
    assert machine.journal == []


def test_probe_after_a_crash_returns_what_was_recorded(machine: Machine) -> None:
    machine.sent = 1
    before = machine.probe()
    assert (before.code, before.data.state) == (ErrorCode.INTERRUPTED, "not_added")
    machine.send("python")
    machine.restart()
    confirmed = machine.probe()
    assert (confirmed.code, confirmed.data.state) == (None, "active")
    machine.turn(60)
    assert "was reversed at 2026-01-01 00:17:40 UTC" in machine.probe().message
    machine.send("fails-later")
    machine.restart()
    uncertain = machine.probe()
    assert (uncertain.code, uncertain.data.state) == (ErrorCode.INTERRUPTED, "uncertain")


def test_script_does_not_start_for_a_protected_address(machine: Machine) -> None:
    parameters = ExecuteActiveResponse("stateless", {"data": {"srcip": "198.51.100.7"}})
    done = handler(machine.responses, ServiceConfig()).execute(command("c1"), parameters, machine.context())
    assert isinstance(done, Result)
    assert (done.code, done.data.state) == (ErrorCode.FAILED, "protected")
    assert "'198.51.100.7' includes what is protected by active_response.protected_addresses" in done.message
    assert machine.journal == []


@pytest.mark.parametrize("key", ["198.51.100.7", "::ffff:198.51.100.7", "127.1", "nobody"])
def test_script_that_names_a_protected_key_is_aborted(machine: Machine, key: str) -> None:
    done = machine.send("python", key)
    assert (done.code, done.data.state) == (ErrorCode.FAILED, "protected")
    assert machine.journal == [f"aborted {key}"]
    assert machine.pending == []


def test_unlisted_script_is_refused_with_the_listed_names(machine: Machine) -> None:
    with raises_code(ActiveResponseError, "script_not_allowed") as caught:
        machine.send("rm")
    assert "'rm'" in str(caught.value)
    assert ": delete-fails, " in str(caught.value)


def test_refused_line_of_the_allow_list_is_in_the_status(machine: Machine) -> None:
    assert machine.responses.failure is None
    good = machine.allow_list.read_text()
    machine.allow_list.write_text(f"!netsh - netsh - 0\n{good}")
    assert "allow-list:1: '!netsh' is not a plain name" in (machine.responses.failure or "")
    assert machine.send("python").code is None
    machine.allow_list.write_text(good)
    assert machine.responses.failure is None
