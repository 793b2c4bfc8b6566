"""The enrolments on the disk, the change from one to another, and crashes during it."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.contract.commands import mask_secret_parameters
from broker.contract.messages import Command
from broker.contract.states import ErrorCode, State
from consumer.config import load_config, load_identity, read_sources, unused_values
from consumer.engine.feedback import FeedbackFactory
from consumer.enrolment.enroll import parse_token
from consumer.enrolment.keys import new_key
from consumer.enrolment.relocation import Relocation
from consumer.enrolment.store import (
    AttemptState,
    CertifiedGrant,
    Enrolment,
    EnrolmentAttempt,
    EnrolmentDirectory,
    Grant,
)
from consumer.errors import ConfigurationError, EnrolmentError
from consumer.handler import Context, Result
from consumer.handlers import enroll_agent
from consumer.observer import LogObserver
from consumer.ports import StoredCommand
from consumer.services import NoService
from consumer.system.leftovers import Leftovers
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.makers import NOW, command
from tests.support.unprivileged import as_nobody, directory_of_nobody
from tests.unit.consumer.engine.test_command_manager import ManagerHarness

TOKEN = f"acm1.{'s' * 22}.{'0' * 64}"
GRANT = Grant(
    "web-01", "e-1", "https://acm", "mqtts://new", "acm", ("key",), NOW, NOW + timedelta(hours=3), token="a" * 64
)
ASKED = replace(command("a", 1, "enroll-agent"), parameters={"server": "https://acm", "token": TOKEN})


@pytest.fixture
def enrolments(tmp_path: Path) -> EnrolmentDirectory:
    return EnrolmentDirectory(tmp_path)


Add = Callable[..., Enrolment]


@pytest.fixture
def add(enrolments: EnrolmentDirectory) -> Add:
    return adding_to(enrolments)


def adding_to(enrolments: EnrolmentDirectory) -> Add:
    def adding(name: str, **changes: str) -> Enrolment:
        return enrolments.add(CertifiedGrant(replace(GRANT, **changes), name, f"certificate {name}", "ca"), new_key())

    return adding


def test_enrolment_is_complete_private_and_current_only_on_request(
    enrolments: EnrolmentDirectory, add: Add, tmp_path: Path
) -> None:
    assert enrolments.current() is None
    one = add("1")
    assert enrolments.current() is None
    enrolments.make_current("1")
    assert enrolments.current() == one
    files = {path.name: path.stat().st_mode & 0o777 for path in one.directory.iterdir()}
    assert files == dict.fromkeys(("key.pem", "certificate.pem", "ca.pem", "enrolment.json"), 0o600)
    assert one.directory.stat().st_mode & 0o777 == 0o700
    assert add("1") == one
    add("2")
    enrolments.key_for("b" * 64)
    enrolments.keep_only("1")
    assert sorted(path.name for path in (tmp_path / "enrolment").rglob("*.pem") if path.parent.name != "1") == []


def test_current_enrolment_is_never_removed(enrolments: EnrolmentDirectory, add: Add) -> None:
    one = add("1")
    enrolments.make_current("1")
    enrolments.remove("1")
    assert enrolments.current() == one
    with raises_code(EnrolmentError, "enrolment_unreadable"):
        enrolments.make_current("nothing")
    assert enrolments.current() == one


@pytest.mark.parametrize("content", [b"{", b'{"agent": "\xff"}'])
def test_damaged_enrolment_is_an_error(enrolments: EnrolmentDirectory, add: Add, content: bytes) -> None:
    one = add("1")
    enrolments.make_current("1")
    (one.directory / "enrolment.json").write_bytes(content)
    with raises_code(EnrolmentError, "enrolment_unreadable"):
        enrolments.current()


@pytest.mark.parametrize("content", [b"", b'{"command_id": "\xff"}', b"[]", None])
def test_damaged_attempt_is_set_aside_once(
    enrolments: EnrolmentDirectory, add: Add, tmp_path: Path, content: bytes | None
) -> None:
    add("1")
    record = tmp_path / "enrolment" / "attempt.json"
    record.mkdir() if content is None else record.write_bytes(content)
    assert enrolments.attempt() is None
    assert "attempt.damaged" in (enrolments.damage or "")
    assert (record.exists(), record.with_suffix(".damaged").exists()) == (False, True)
    again = EnrolmentDirectory(tmp_path)
    assert (again.attempt(), again.damage) == (None, None)
    enrolments.record(EnrolmentAttempt("a", "1", GRANT, AttemptState.STAGED))
    assert enrolments.attempt() is not None


def test_attempt_that_cannot_be_set_aside_is_ignored(enrolments: EnrolmentDirectory, add: Add, tmp_path: Path) -> None:
    add("1")
    (tmp_path / "enrolment" / "attempt.json").write_bytes(b"{")
    (tmp_path / "enrolment" / "attempt.damaged").mkdir()
    assert enrolments.attempt() is None
    assert "attempt.json" in (enrolments.damage or "")


def test_renewal_is_due_after_two_thirds_of_the_lifetime() -> None:
    assert GRANT.renew_at == NOW + timedelta(hours=2)


def test_enrolment_determines_the_broker(enrolments: EnrolmentDirectory, add: Add, tmp_path: Path) -> None:
    flags = {"agent": "web-01", "state": str(tmp_path), "broker": "mqtt://old"}
    assert load_config(None, flags, {}).broker == "mqtt://old"
    assert unused_values(read_sources(None, flags, {})) == []
    add("1", topic_prefix="new")
    enrolments.make_current("1")
    merged = load_config(None, {"state": str(tmp_path)}, {"ACM_BROKER": "mqtt://old"})
    assert (merged.agent, merged.broker, merged.topic_prefix) == ("web-01", "mqtts://new", "new")
    assert unused_values(read_sources(None, flags, {})) == ["broker"]
    assert load_identity(None, {"state": str(tmp_path)}, {}) == ("web-01", tmp_path)
    with raises_code(ConfigurationError, "agent_mismatch"):
        load_config(None, flags | {"agent": "web-02"}, {})


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ({"agent": "x"}, "state_missing"),
        ({"state": "x"}, "agent_missing"),
        ({"agent": "X", "state": "x"}, "invalid_agent"),
    ],
)
def test_enrolling_needs_agent_and_state_directory(flags: dict[str, str], code: str) -> None:
    with raises_code(ConfigurationError, code):
        load_identity(None, flags, {})


class Unconnected:
    def start(self) -> None: ...

    def stop(self, *, last_will: bool = False) -> None: ...


class Steps:
    """Records the steps."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def reached(self, step: str) -> None:
        self.seen.append(step)


def relocation_of(
    enrolments: EnrolmentDirectory, store: MemoryCommandStore, clock: TurnedClock, home: str = "mqtt://old"
) -> Relocation:
    parts = (enrolments, store, Unconnected(), clock, LogObserver())
    return Relocation(*parts, incarnation="i1", address=(home, "acm"), accept_unsigned=True)


def decided(enrolments: EnrolmentDirectory, add: Add) -> EnrolmentAttempt:
    """Make the old enrolment current, and return a decided attempt to switch to the new one."""
    add("old")
    enrolments.make_current("old")
    return EnrolmentAttempt("a", add("new").directory.name, GRANT, AttemptState.TRIAL)


def test_no_renewal_during_a_move(
    enrolments: EnrolmentDirectory, add: Add, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    attempt, relocation = decided(enrolments, add), relocation_of(enrolments, store, clock)
    assert not relocation.in_progress
    relocation.schedule_switch(attempt)
    assert relocation.in_progress
    relocation.step()
    assert relocation.moved_by == "a"
    assert relocation.in_progress


def test_agent_leaves_once_the_old_server_has_all_results(
    enrolments: EnrolmentDirectory, add: Add, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    attempt, relocation = decided(enrolments, add), relocation_of(enrolments, store, clock)
    asked, other = (store.store_command(one, clock.now()) for one in (ASKED, command("b", 2)))
    relocation.schedule_switch(attempt)
    running = store.mark_processing(asked, clock.now(), "i1")
    relocation.step()
    reports = FeedbackFactory("web-01", "i1", "g1")
    store.mark_completed(running, reports.result(ASKED, Result("Done."), clock.now()))
    store.delete_completed_commands(["a"], clock.now())
    relocation.step()
    assert relocation.moved_by is None
    store.mark_completed(other, reports.result(other.command, Result("No.", code=ErrorCode.REJECTED), clock.now()))
    store.delete_completed_commands(["b"], clock.now())
    relocation.step()
    assert relocation.moved_by == "a"
    current, last = enrolments.current(), enrolments.attempt()
    assert current is not None
    assert last is not None
    assert (current.directory.name, last.state) == ("new", AttemptState.COMMITTED)


def test_agent_waits_a_minute_for_the_old_servers_acks(
    enrolments: EnrolmentDirectory, add: Add, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    attempt = decided(enrolments, add)
    stored = store.mark_processing(store.store_command(ASKED, clock.now()), clock.now(), "i1")
    relocation_of(enrolments, store, clock).schedule_switch(attempt)
    relocation = relocation_of(enrolments, store, clock)  # after kill -9
    clock.turn(61)
    relocation.step()
    assert relocation.moved_by is None, "its result is not even there"
    store.mark_completed(stored, FeedbackFactory("web-01", "i1", "g1").result(ASKED, Result("Done."), clock.now()))
    relocation.step()
    assert relocation.moved_by == "a"


def test_move_at_the_same_broker_waits_only_for_the_result_of_its_command(
    enrolments: EnrolmentDirectory, add: Add, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    attempt, relocation = decided(enrolments, add), relocation_of(enrolments, store, clock, "mqtts://new")
    stored = store.mark_processing(store.store_command(ASKED, clock.now()), clock.now(), "i1")
    store.store_command(command("b", 2), clock.now())
    relocation.schedule_switch(attempt)
    store.mark_completed(stored, FeedbackFactory("web-01", "i1", "g1").result(ASKED, Result("Done."), clock.now()))
    relocation.step()
    assert relocation.moved_by is None
    store.delete_completed_commands(["a"], clock.now())
    relocation.step()
    assert relocation.moved_by == "a"


def test_agent_moves_although_the_old_enrolment_cannot_be_removed(
    store: MemoryCommandStore, clock: TurnedClock
) -> None:
    with directory_of_nobody() as state:
        leftovers = Leftovers()
        enrolments = EnrolmentDirectory(state, leftovers)
        with as_nobody():
            attempt, relocation = decided(enrolments, adding_to(enrolments)), relocation_of(enrolments, store, clock)
        of_root = state / "enrolment" / "enrolments" / "old" / "of-root"
        (of_root / "inner").mkdir(parents=True)
        with as_nobody():
            relocation.schedule_switch(attempt)
            relocation.step()
        assert relocation.moved_by == "a"
        assert "of-root/inner: Permission denied" in str(leftovers.problem)


def test_enrolment_of_which_a_part_cannot_be_removed_stops_no_later_one(clock: TurnedClock) -> None:
    with directory_of_nobody() as state:
        leftovers = Leftovers()
        enrolments = EnrolmentDirectory(state, leftovers)
        all_of_them = state / "enrolment" / "enrolments"
        with as_nobody():
            adding_to(enrolments)("new")
        for place in (all_of_them / "new" / "of-root", all_of_them / ".new.part"):
            (place / "inner").mkdir(parents=True)
        with as_nobody():
            enrolments.remove("new")
            assert "of-root/inner: Permission denied" in str(leftovers.problem)
            assert enrolments.granted_for(GRANT.token, GRANT.server, clock.now()) is None
            again = adding_to(enrolments)("new")
            assert enrolments.granted_for(GRANT.token, GRANT.server, clock.now()) == again
        assert ".new.part/inner: Permission denied" in str(leftovers.problem)


def test_damaged_enrolment_stops_no_later_one(enrolments: EnrolmentDirectory, add: Add, clock: TurnedClock) -> None:
    (add("damaged").directory / "enrolment.json").write_bytes(b"{")
    assert enrolments.granted_for(GRANT.token, GRANT.server, clock.now()) is None
    new = add("new")
    assert enrolments.granted_for(GRANT.token, GRANT.server, clock.now()) == new


def test_failed_switch_of_enrolment_is_retried(
    enrolments: EnrolmentDirectory, add: Add, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    attempt, relocation = decided(enrolments, add), relocation_of(enrolments, store, clock)
    relocation.schedule_switch(replace(attempt, name="later"))
    relocation.step()
    assert relocation.moved_by is None
    add("later")
    relocation.step()
    assert relocation.moved_by is None
    clock.turn(11)
    relocation.step()
    assert relocation.moved_by == "a"


def test_commands_after_a_move_are_refused_or_wait_at_the_same_broker(
    enrolments: EnrolmentDirectory, add: Add, store: MemoryCommandStore, clock: TurnedClock
) -> None:
    attempt = decided(enrolments, add)
    away, home = relocation_of(enrolments, store, clock), relocation_of(enrolments, store, clock, "mqtts://new")
    assert (away.refusal, away.holds, home.holds) == (None, False, False)
    for relocation in (away, home):
        relocation.schedule_switch(attempt)
    assert away.refusal is not None
    assert (away.refusal.code, "mqtts://new" in away.refusal.message) == ("agent_leaves", True)
    assert (away.holds, home.holds, home.refusal) == (False, True, None)


@pytest.mark.parametrize(("home", "result"), [("mqtt://old", ErrorCode.REJECTED), ("mqtts://new", None)])
def test_manager_begins_no_command_of_a_server_that_the_agent_leaves(
    enrolments: EnrolmentDirectory, add: Add, clock: TurnedClock, home: str, result: ErrorCode | None
) -> None:
    relocation = relocation_of(enrolments, MemoryCommandStore(), clock, home)
    relocation.schedule_switch(decided(enrolments, add))
    harness = ManagerHarness(departure=relocation)
    harness.store.store_command(command("b", 2, "rerun"), clock.now())
    harness.manager.carry_out(harness.manager.decide([], []))
    stored = harness.store.find("b")
    assert stored is not None
    assert (stored.result.feedback.code if stored.result else None) == result
    assert not harness.ran


class Trial:
    """A relocation whose trial ends with `error`."""

    holds = False
    refusal = None

    def __init__(self, error: str | None = None) -> None:
        self.error = error
        self.left_for: list[EnrolmentAttempt] = []

    def try_out(self, enrolment: Enrolment, deadline: float, cancelled: threading.Event) -> None:
        if self.error:
            raise EnrolmentError(self.error)

    def schedule_switch(self, attempt: EnrolmentAttempt) -> None:
        self.left_for.append(attempt)


def probe(enrolments: EnrolmentDirectory, tmp_path: Path, trial: Trial, steps: Steps) -> Result:
    context = Context(TurnedClock(), NoService(), tmp_path, observer=steps)
    found = enroll_agent.handler("web-01", trial).probe
    assert found is not None
    done = found(StoredCommand("c/1", ASKED, State.PROCESSING, NOW, NOW, "i1"), context)
    assert isinstance(done, Result)
    return done


@pytest.mark.parametrize(
    ("state", "code"),
    [(AttemptState.CARRIED, None), (AttemptState.COMMITTED, None), (AttemptState.ROLLED_BACK, ErrorCode.FAILED)],
)
def test_decision_before_a_crash_is_the_result_after_it(
    enrolments: EnrolmentDirectory, tmp_path: Path, state: AttemptState, code: ErrorCode | None
) -> None:
    enrolments.record(EnrolmentAttempt("a", "new", GRANT, state, reason="It failed."))
    steps = Steps()
    assert probe(enrolments, tmp_path, Trial(), steps).code == code
    assert steps.seen == []


@pytest.mark.parametrize("error", [None, "It failed."])
def test_enrolment_interrupted_by_a_crash_resumes(
    enrolments: EnrolmentDirectory, add: Add, tmp_path: Path, error: str | None
) -> None:
    granted = add("new", token=parse_token(TOKEN).secret_hash)
    enrolments.record(EnrolmentAttempt("a", "new", GRANT, AttemptState.TRIAL))
    trial, steps = Trial(error), Steps()
    done = probe(enrolments, tmp_path, trial, steps)
    if error is None:
        assert (done.code, [attempt.name for attempt in trial.left_for]) == (None, ["new"])
        assert steps.seen == ["enroll-agent.staged", "enroll-agent.trial", "enroll-agent.carried"]
    else:
        assert (done.code, done.message) == (ErrorCode.FAILED, "It failed. The agent keeps its previous enrolment.")
        last = enrolments.attempt()
        assert last is not None
        assert (last.state, last.reason) == (AttemptState.ROLLED_BACK, "It failed.")
        assert not granted.directory.exists()


def test_trial_that_ends_after_the_deadline_decides_nothing(
    enrolments: EnrolmentDirectory, add: Add, tmp_path: Path
) -> None:
    add("new", token=parse_token(TOKEN).secret_hash)
    trial, clock = Trial(), TurnedClock()
    late = Context(clock, NoService(), tmp_path, deadline=clock.monotonic())
    handler = enroll_agent.handler("web-01", trial)
    done = handler.execute(ASKED, enroll_agent.EnrollAgent("https://acm", TOKEN), late)
    assert isinstance(done, Result)
    assert (done.code, trial.left_for) == (ErrorCode.TIMED_OUT, [])


def test_token_is_not_used_if_the_next_process_would_not_start(enrolments: EnrolmentDirectory, tmp_path: Path) -> None:
    steps = Steps()
    context = Context(TurnedClock(), NoService(), tmp_path, observer=steps)
    refused = Result("No.", code=ErrorCode.FAILED)
    handler = enroll_agent.handler("web-01", Trial(), lambda *_: refused)
    assert handler.execute(ASKED, enroll_agent.EnrollAgent("https://acm", TOKEN), context) == refused
    assert (steps.seen, enrolments.attempt()) == ([], None)


def test_secret_parameter_is_masked_wherever_a_command_is_shown() -> None:
    echo = FeedbackFactory("web-01", "i1", "g1").result(ASKED, Result("Done."), NOW).feedback.command
    assert TOKEN not in json.dumps(echo)
    assert echo is not None
    assert echo["parameters"] == {"server": "https://acm", "token": "********"}
    original = {"action": {"name": "enroll-agent", "args": {"token": TOKEN}}, "more": [TOKEN, 1]}
    shown = mask_secret_parameters(ASKED, original)
    assert shown == {"action": {"name": "enroll-agent", "args": {"token": "********"}}, "more": ["********", 1]}
    misspelt: Command = replace(ASKED, type="enrollAgents")
    assert mask_secret_parameters(misspelt, original) == shown
    other: Command = replace(ASKED, type="restart-agent")
    assert mask_secret_parameters(other, original) == shown, "a token is one by its name, too"
    plain: Command = replace(ASKED, type="restart-agent", parameters={"server": "https://acm"})
    assert mask_secret_parameters(plain, original) is original


def test_current_enrolment_of_a_relative_directory_is_recognized(
    add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EnrolmentDirectory(tmp_path).make_current(add("one").directory.name)
    monkeypatch.chdir(tmp_path.parent)
    enrolments = EnrolmentDirectory(Path(tmp_path.name))
    assert enrolments.current() == enrolments.granted_for(GRANT.token, GRANT.server, NOW)


def test_link_that_leads_to_itself_is_an_error_in_one_sentence(enrolments: EnrolmentDirectory, tmp_path: Path) -> None:
    (tmp_path / "enrolment").mkdir()
    (tmp_path / "enrolment" / "current").symlink_to("current")
    with raises_code(EnrolmentError, "enrolment_unreadable"):
        enrolments.current()


def test_fault_of_the_machine_is_no_reason_to_remove_an_enrolment(add: Add, enrolments: EnrolmentDirectory) -> None:
    one = add("one")
    enrolments.make_current("one")
    (one.directory / "enrolment.json").unlink()
    (one.directory / "enrolment.json").symlink_to("/proc/self/mem")  # reading it is an I/O error
    with raises_code(EnrolmentError, "directory_unusable"):
        enrolments.current()
