"""The states of a command, its recovery, and cancels, on the store's twin in memory."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS
from broker.contract.messages import Ack, Command, Feedback
from broker.contract.states import ErrorCode, FeedbackKind, State
from consumer.engine.command_manager import CommandManager, Departure
from consumer.engine.executor import Executor
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.outbox import FeedbackOutbox
from consumer.engine.process_renewal import ProcessRenewal
from consumer.engine.start_check import StartCheck
from consumer.handler import AgentRestart, Context, Handler, Interruption, Replacement, ReplacementTest, Result
from consumer.handlers.built_in import added_handlers
from consumer.services import NoService
from consumer.trust.refusal import Refusal
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.departure import NoDeparture
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.journals import entries_of, journal_of
from tests.support.makers import command, decoded
from tests.support.stored import all_commands

REVOKED = Refusal("signers_revoked", "None of its keys is trusted now.")


@dataclass(frozen=True)
class Nothing:
    """No parameters."""


class ManagerHarness:
    """A manager whose handlers run when the test calls `run`; `ran` are the commands that had an effect."""

    def __init__(
        self,
        store: MemoryCommandStore | None = None,
        incarnation: str = "i1",
        departure: Departure | None = None,
        test_replacement: ReplacementTest | None = None,
    ) -> None:
        self.store = store or MemoryCommandStore()
        self.clock = TurnedClock()
        self.ran: list[str] = []
        self.before_effect: Callable[[], object] = lambda: None
        self._work: list[Callable[[], None]] = []
        self.handlers = added_handlers(
            [
                Handler("report", Interruption.REPORT, Nothing, self._run),
                Handler("rerun", Interruption.RERUN, Nothing, self._run),
                Handler("probe", Interruption.PROBE, Nothing, self._run, lambda *_: Result("It had worked.")),
                Handler("renew", Interruption.PROBE, Nothing, lambda *_: AgentRestart(), lambda *_: Result("New.")),
            ]
        )
        reports = FeedbackFactory("web-01", incarnation, "g1")
        start_check = StartCheck(self.clock, lambda signed_by: REVOKED if signed_by == ("old",) else None)
        context = Context(self.clock, NoService(), Path("/nowhere"))
        self.executor = Executor(
            self.handlers,
            context,
            self._work.append,
            incarnation=incarnation,
            default_timeout_s=10.0,
            grace_s=1.0,
            report=reports.result_of,
            start_check=start_check,
            on_finished=lambda: None,
        )
        self.outbox = FeedbackOutbox(self.store, self.clock)
        self.manager = CommandManager(
            self.store,
            self.executor,
            self.outbox,
            reports,
            self.clock,
            departure or NoDeparture(),
            start_check=start_check,
            renewal=ProcessRenewal(context, self._work.append, lambda: None, test_replacement),
        )

    def _run(self, command: Command, *_: Any) -> Result:
        self.before_effect()
        self.ran.append(command.id)
        return Result("Done.")

    def add(self, name: str, command_type: str, **members: Any) -> None:
        self.store.store_command(replace(command(name, command_type=command_type), **members), self.clock.now())

    def turn(self, acks: list[Ack] | None = None, cancel: list[str] | None = None) -> None:
        with self.store.transaction():
            decisions = self.manager.decide(acks or [], cancel or [])
        self.manager.carry_out(decisions)

    def run(self) -> None:
        work, self._work[:] = self._work[:], []
        for each in work:
            each()

    def states(self) -> dict[str, State]:
        return {stored.command.id: stored.state for stored in all_commands(self.store)}

    def due(self) -> list[Feedback]:
        self.clock.turn(0.1)
        return decoded(self.outbox.take_due())

    def results(self) -> dict[str | None, ErrorCode | None]:
        return {said.command_id: said.code for said in self.due() if said.kind is FeedbackKind.RESULT}


def test_each_state_is_committed_before_its_effect() -> None:
    harness = ManagerHarness()
    harness.add("a", "report")
    harness.turn()
    assert (harness.states(), harness.ran) == ({"a": State.PROCESSING}, [])
    assert [said.kind for said in harness.due()] == [FeedbackKind.PROGRESS]
    harness.run()
    assert harness.due() == []
    harness.turn()
    assert harness.states() == {"a": State.DONE}
    (result,) = harness.due()
    assert (result.kind, result.started_at is not None) == (FeedbackKind.RESULT, True)
    assert result.digest is not None
    harness.turn([Ack("a", result.digest)])
    assert harness.states() == {}
    assert harness.store.find_tombstone("a") is not None


def test_commands_safe_to_repeat_begin_as_a_group_and_others_alone() -> None:
    harness = ManagerHarness()
    for name, command_type in [("a", "report"), ("b", "rerun"), ("c", "rerun"), ("d", "report")]:
        harness.add(name, command_type)
    begun = []
    for _ in range(3):
        harness.turn()
        begun.append([name for name, state in harness.states().items() if state is State.PROCESSING])
        harness.run()
    assert begun == [["a"], ["b", "c"], ["d"]]
    assert harness.ran == ["a", "b", "c", "d"]


def test_commands_that_must_not_begin_get_results_without_running() -> None:
    harness = ManagerHarness()
    harness.add("late", "report", expires_at=harness.clock.now() - timedelta(seconds=1))
    harness.add("strange", "make-coffee")
    harness.add("unwanted", "report")
    harness.turn(cancel=["unwanted"])
    assert harness.results() == {
        "late": ErrorCode.EXPIRED,
        "strange": ErrorCode.UNSUPPORTED,
        "unwanted": ErrorCode.CANCELLED,
    }
    assert harness.ran == []


def test_pending_command_with_revoked_signer_is_rejected() -> None:
    harness = ManagerHarness()
    for number, (name, kind) in enumerate([("a", "report"), ("u", UPDATE_SIGNING_KEYS)], 1):
        harness.store.store_command(command(name, number, kind), harness.clock.now(), ("old",))
    harness.turn()
    assert harness.results() == {"a": ErrorCode.REJECTED, "u": ErrorCode.UNSUPPORTED}
    assert harness.ran == []


def test_cancel_that_arrives_before_its_command_is_remembered() -> None:
    harness = ManagerHarness()
    harness.turn(cancel=["a"])
    harness.add("a", "report")
    harness.turn()
    assert harness.results() == {"a": ErrorCode.CANCELLED}


def test_cancel_of_a_done_command_sends_its_result_again() -> None:
    harness = ManagerHarness()
    harness.add("a", "report")
    harness.turn()
    harness.run()
    harness.turn()
    assert harness.results() == {"a": None}
    harness.turn(cancel=["a"])
    assert harness.results() == {"a": None}


def test_failed_commit_loses_nothing() -> None:
    harness = ManagerHarness()
    harness.add("a", "report")
    harness.turn()
    harness.run()

    def decide_and_fail() -> None:
        with harness.store.transaction():
            harness.manager.decide([], [])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decide_and_fail()
    assert (harness.states(), harness.results()) == ({"a": State.PROCESSING}, {})
    harness.turn()
    assert (harness.states(), harness.results()) == ({"a": State.DONE}, {"a": None})


@pytest.mark.parametrize(
    ("command_type", "code", "runs"),
    [("report", ErrorCode.INTERRUPTED, []), ("rerun", None, ["a"]), ("probe", None, []), ("gone", "interrupted", [])],
)
def test_interrupted_command_is_recovered_by_its_handlers_rule(command_type: str, code: Any, runs: list[str]) -> None:
    before = ManagerHarness()
    before.add("a", command_type)
    (stored,) = before.store.get_next_commands(1)
    before.store.mark_processing(stored, before.clock.now(), "i1")
    after = ManagerHarness(before.store, "i2")
    after.manager.recover()
    after.run()
    after.turn()
    assert after.ran == runs
    assert after.results() == {"a": code}


@pytest.mark.parametrize(("restarted_by", "events"), [("a", []), (None, ["command_interrupted"])])
def test_command_that_replaced_the_process_was_not_interrupted(restarted_by: str | None, events: list[str]) -> None:
    before = ManagerHarness()
    before.add("a", "probe")
    (stored,) = before.store.get_next_commands(1)
    before.store.mark_processing(stored, before.clock.now(), "i1")
    with capture_logs() as lines:
        ManagerHarness(before.store, "i2").manager.recover(restarted_by)
    assert [line["event"] for line in lines] == events


@pytest.mark.parametrize(
    ("change", "named"),
    [("cancelled", "cancelled"), ("expired", "expired"), ("revoked", "None of its keys")],
)
def test_interrupted_command_that_must_not_begin_any_more_does_not_run_again(change: str, named: str) -> None:
    before = ManagerHarness()
    expires_at = before.clock.now() + timedelta(seconds=60) if change == "expired" else None
    asked = replace(command("a", command_type="rerun"), expires_at=expires_at)
    before.store.store_command(asked, before.clock.now(), ("old",) if change == "revoked" else ())
    (stored,) = before.store.get_next_commands(1)
    before.store.mark_processing(stored, before.clock.now(), "i1")
    after = ManagerHarness(before.store, "i2")
    after.clock.turn(100.0)
    if change == "cancelled":
        before.turn(cancel=["a"])
    after.manager.recover()
    after.run()
    (result,) = after.due()
    assert (result.code, named in result.message, after.ran) == (ErrorCode.INTERRUPTED, True, [])


def test_cancel_of_a_running_command_survives_a_crash() -> None:
    before = ManagerHarness()
    before.add("a", "rerun")
    before.turn()
    before.turn(cancel=["a"])
    after = ManagerHarness(before.store, "i2")
    after.manager.recover()
    after.run()
    assert (after.results(), after.ran) == ({"a": ErrorCode.INTERRUPTED}, [])


def test_process_is_renewed_for_a_handler_that_was_cut_off_once_no_command_waits() -> None:
    harness = ManagerHarness()
    for name in "ab":
        harness.add(name, "report")
    harness.turn()
    hung = threading.Thread(target=harness.run, daemon=True)
    release, entered = threading.Event(), threading.Event()
    harness.before_effect = lambda: (entered.set(), release.wait(20))
    hung.start()
    assert entered.wait(20)
    harness.clock.turn(20.0)
    harness.turn()
    harness.before_effect = lambda: None
    assert (harness.executor.cut_off, harness.manager.replacement) == ("a", None)
    harness.run()
    harness.turn()
    assert harness.manager.replacement == Replacement("a")
    assert harness.results() == {"a": ErrorCode.TIMED_OUT, "b": None}
    release.set()


def cut_off_without_waiting_commands(test_replacement: ReplacementTest) -> ManagerHarness:
    harness = ManagerHarness(test_replacement=test_replacement)
    harness.add("a", "report")
    harness.turn()
    entered, never = threading.Event(), threading.Event()
    harness.before_effect = lambda: (entered.set(), never.wait(20))
    threading.Thread(target=harness.run, daemon=True).start()
    assert entered.wait(20)
    harness.clock.turn(20.0)
    harness.turn()
    return harness


def test_process_is_not_renewed_by_a_program_that_does_not_start() -> None:
    refusals: list[Result | None] = [Result("Its test ended.", code=ErrorCode.FAILED), None]
    harness = cut_off_without_waiting_commands(lambda *_: refusals.pop(0))
    for _ in range(2):
        harness.turn()
        harness.run()
    assert (harness.manager.replacement, len(refusals)) == (None, 1)
    harness.clock.turn(600.0)
    for _ in range(2):
        harness.turn()
        harness.run()
    assert harness.manager.replacement == Replacement("a")


def test_recovery_queues_unacknowledged_results() -> None:
    before = ManagerHarness()
    before.add("a", "report")
    before.turn()
    before.run()
    before.turn()
    after = ManagerHarness(before.store, "i2")
    after.manager.recover()
    assert after.results() == {"a": None}


def test_no_command_begins_while_the_process_is_to_be_replaced() -> None:
    harness = ManagerHarness()
    harness.add("a", "renew")
    harness.add("b", "report")
    harness.turn()
    harness.run()
    harness.turn()
    assert harness.manager.replacement == Replacement("a")
    harness.turn()
    assert harness.states() == {"a": State.PROCESSING, "b": State.PENDING}
    after = ManagerHarness(harness.store, "i2")
    after.manager.recover()
    for _ in range(2):
        after.run()
        after.turn()
    assert after.results() == {"a": None, "b": None}


def test_second_run_after_a_crash_is_in_the_journal() -> None:
    before = ManagerHarness()
    before.add("a", "rerun")
    before.add("b", "report")
    before.turn()
    after = ManagerHarness(before.store, incarnation="i2")
    after.manager.recover()
    (entry,) = [entry for entry in entries_of(journal_of(after.store)) if "resumed" in entry]
    assert (entry["resumed"], entry["incarnation"]) == (["a"], "i2")
