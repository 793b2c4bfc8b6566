"""The states of a command, its recovery, and cancels, on the store's twin in memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS
from broker.contract.messages import Ack, Command, Control, Feedback
from broker.contract.states import ControlAction, ErrorCode, FeedbackKind, State
from consumer.engine.command_manager import CommandManager, Departure
from consumer.engine.executor import Executor
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.outbox import FeedbackOutbox
from consumer.handler import AgentRestart, Context, Handler, Interruption, Replacement, Result
from consumer.handlers.built_in import added_handlers
from consumer.services import NoService
from consumer.trust.refusal import Refusal
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.departure import NoDeparture
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.journals import entries_of, journal_of
from tests.support.makers import command, decoded

REVOKED = Refusal("signers_revoked", "None of its keys is trusted now.")


@dataclass(frozen=True)
class Nothing:
    """No parameters."""


class Bench:
    """A manager whose handlers run when the test says so; `ran` are the commands that had an effect."""

    def __init__(
        self,
        store: MemoryCommandStore | None = None,
        incarnation: str = "i1",
        departure: Departure | None = None,
    ) -> None:
        self.store = store or MemoryCommandStore()
        self.clock = TurnedClock()
        self.ran: list[str] = []
        self._work: list[Callable[[], None]] = []
        self.handlers = added_handlers(
            [
                Handler("report", Interruption.REPORT, Nothing, self._run),
                Handler("rerun", Interruption.RERUN, Nothing, self._run),
                Handler("probe", Interruption.PROBE, Nothing, self._run, lambda *_: Result("It had worked.")),
                Handler("renew", Interruption.PROBE, Nothing, lambda *_: AgentRestart(), lambda *_: Result("New.")),
            ]
        )
        self.executor = Executor(
            self.handlers,
            Context(self.clock, NoService(), Path("/nowhere")),
            self._work.append,
            incarnation=incarnation,
            default_timeout_s=10.0,
            grace_s=1.0,
            on_finished=lambda: None,
        )
        self.outbox = FeedbackOutbox(self.store, self.clock)
        reports = FeedbackFactory("web-01", incarnation, "g1")
        self.manager = CommandManager(
            self.store,
            self.executor,
            self.outbox,
            reports,
            self.clock,
            departure or NoDeparture(),
            check_signers=lambda signed_by: REVOKED if signed_by == ("old",) else None,
        )

    def _run(self, command: Command, *_: Any) -> Result:
        self.ran.append(command.id)
        return Result("Done.")

    def add(self, name: str, command_type: str, **members: Any) -> None:
        self.store.store_command(replace(command(name, command_type=command_type), **members), self.clock.now())

    def turn(self, acks: list[Ack] | None = None, cancel: list[str] | None = None) -> None:
        controls = [Control(ControlAction.CANCEL, name) for name in cancel or []]
        with self.store.transaction():
            decisions = self.manager.decide(acks or [], controls)
        self.manager.carry_out(decisions)

    def run(self) -> None:
        work, self._work[:] = self._work[:], []
        for each in work:
            each()

    def states(self) -> dict[str, State]:
        return {stored.command.id: stored.state for stored in self.store.all_commands()}

    def due(self) -> list[Feedback]:
        self.clock.turn(0.1)
        return decoded(self.outbox.take_due())

    def results(self) -> dict[str | None, ErrorCode | None]:
        return {said.command_id: said.code for said in self.due() if said.kind is FeedbackKind.RESULT}


def test_processing_is_committed_before_the_handler_starts_and_the_result_before_it_is_sent() -> None:
    bench = Bench()
    bench.add("a", "report")
    bench.turn()
    assert (bench.states(), bench.ran) == ({"a": State.PROCESSING}, [])
    assert [said.kind for said in bench.due()] == [FeedbackKind.PROGRESS]
    bench.run()
    assert bench.due() == []
    bench.turn()
    assert bench.states() == {"a": State.DONE}
    (result,) = bench.due()
    assert (result.kind, result.started_at is not None) == (FeedbackKind.RESULT, True)
    assert result.digest is not None
    bench.turn([Ack("a", result.digest)])
    assert bench.states() == {}
    assert bench.store.find_tombstone("a") is not None


def test_what_is_not_safe_to_repeat_is_begun_alone_and_the_rest_together() -> None:
    bench = Bench()
    for name, command_type in [("a", "report"), ("b", "rerun"), ("c", "rerun"), ("d", "report")]:
        bench.add(name, command_type)
    begun = []
    for _ in range(3):
        bench.turn()
        begun.append([name for name, state in bench.states().items() if state is State.PROCESSING])
        bench.run()
    assert begun == [["a"], ["b", "c"], ["d"]]
    assert bench.ran == ["a", "b", "c", "d"]


def test_the_unfit_get_their_results_without_running() -> None:
    bench = Bench()
    bench.add("late", "report", expires_at=bench.clock.now() - timedelta(seconds=1))
    bench.add("strange", "make-coffee")
    bench.add("unwanted", "report")
    bench.turn(cancel=["unwanted"])
    assert bench.results() == {
        "late": ErrorCode.EXPIRED,
        "strange": ErrorCode.UNSUPPORTED,
        "unwanted": ErrorCode.CANCELLED,
    }
    assert bench.ran == []


def test_what_nobody_vouches_for_any_more_is_rejected_but_for_an_update_of_the_keys() -> None:
    bench = Bench()
    for number, (name, kind) in enumerate([("a", "report"), ("u", UPDATE_SIGNING_KEYS)], 1):
        bench.store.store_command(command(name, number, kind), bench.clock.now(), ("old",))
    bench.turn()
    assert bench.results() == {"a": ErrorCode.REJECTED, "u": ErrorCode.UNSUPPORTED}
    assert bench.ran == []


def test_a_cancel_that_comes_before_its_command_is_remembered() -> None:
    bench = Bench()
    bench.turn(cancel=["a"])
    bench.add("a", "report")
    bench.turn()
    assert bench.results() == {"a": ErrorCode.CANCELLED}


def test_a_cancel_of_a_done_command_is_answered_with_its_result() -> None:
    bench = Bench()
    bench.add("a", "report")
    bench.turn()
    bench.run()
    bench.turn()
    assert bench.results() == {"a": None}
    bench.turn(cancel=["a"])
    assert bench.results() == {"a": None}


def test_a_failed_commit_loses_nothing() -> None:
    bench = Bench()
    bench.add("a", "report")
    bench.turn()
    bench.run()

    def decide_and_fail() -> None:
        with bench.store.transaction():
            bench.manager.decide([], [])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decide_and_fail()
    assert (bench.states(), bench.results()) == ({"a": State.PROCESSING}, {})
    bench.turn()
    assert (bench.states(), bench.results()) == ({"a": State.DONE}, {"a": None})


@pytest.mark.parametrize(
    ("command_type", "code", "runs"),
    [("report", ErrorCode.INTERRUPTED, []), ("rerun", None, ["a"]), ("probe", None, []), ("gone", "interrupted", [])],
)
def test_a_crash_in_the_midst_is_settled_by_the_handlers_rule(command_type: str, code: Any, runs: list[str]) -> None:
    before = Bench()
    before.add("a", command_type)
    (stored,) = before.store.get_next_commands(1)
    before.store.mark_processing(stored, before.clock.now(), "i1")
    after = Bench(before.store, "i2")
    after.manager.recover()
    after.run()
    after.turn()
    assert after.ran == runs
    assert after.results() == {"a": code}


def test_recovery_takes_up_the_results_that_wait() -> None:
    before = Bench()
    before.add("a", "report")
    before.turn()
    before.run()
    before.turn()
    after = Bench(before.store, "i2")
    after.manager.recover()
    assert after.results() == {"a": None}


def test_nothing_begins_while_the_process_is_to_be_replaced() -> None:
    bench = Bench()
    bench.add("a", "renew")
    bench.add("b", "report")
    bench.turn()
    bench.run()
    bench.turn()
    assert bench.manager.replacement == Replacement("a")
    bench.turn()
    assert bench.states() == {"a": State.PROCESSING, "b": State.PENDING}
    after = Bench(bench.store, "i2")
    after.manager.recover()
    for _ in range(2):
        after.run()
        after.turn()
    assert after.results() == {"a": None, "b": None}


def test_a_second_run_after_a_crash_is_in_the_journal() -> None:
    before = Bench()
    before.add("a", "rerun")
    before.add("b", "report")
    before.turn()
    after = Bench(before.store, incarnation="i2")
    after.manager.recover()
    (entry,) = [entry for entry in entries_of(journal_of(after.store)) if "resumed" in entry]
    assert (entry["resumed"], entry["incarnation"]) == (["a"], "i2")
