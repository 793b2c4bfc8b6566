"""Commands on the worker: deadlines, cancels, expiry, and handlers that raise or hang."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from broker.contract.messages import Command, Feedback, RunningProgress
from broker.contract.states import ErrorCode, State
from consumer.engine.executor import Executor, Finished
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.start_check import StartCheck
from consumer.errors import ServiceError
from consumer.handler import AgentRestart, Context, Handler, Interruption, ReplacementTest, Result
from consumer.ports import Clock, EncodedFeedback, StoredCommand
from consumer.services import NoService
from consumer.trust.refusal import Refusal
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, command
from tests.support.waiting import wait_for

REVOKED = Refusal("signers_revoked", "None of its keys is trusted now.")
Execute = Callable[[Command, Any, Context], Result | AgentRestart]


@dataclass(frozen=True)
class Parameters:
    seconds: float = 0.0


def in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def executor(
    execute: Execute,
    *,
    spawn: Callable[[Callable[[], None]], None] = lambda work: work(),
    clock: Clock | None = None,
    ended: threading.Event | None = None,
    test_replacement: ReplacementTest | None = None,
) -> Executor:
    handler = Handler("act", Interruption.RERUN, Parameters, execute)
    clock = clock or TurnedClock()
    return Executor(
        {"act": handler},
        Context(clock, NoService(), Path("/nowhere")),
        spawn,
        incarnation="i1",
        default_timeout_s=10.0,
        grace_s=5.0,
        report=FeedbackFactory("web-01", "i1", "g1").result_of,
        start_check=StartCheck(clock, lambda signed_by: REVOKED if signed_by == ("old",) else None),
        on_finished=(ended or threading.Event()).set,
        test_replacement=test_replacement,
    )


def stored(name: str, **members: Any) -> StoredCommand:
    begun = replace(command(name, command_type="act"), **members)
    return StoredCommand(f"c/{name}", begun, State.PROCESSING, NOW, NOW, begun_by="i1")


def done(*_: Any) -> Result:
    return Result("Done.")


def endings(finished: list[Finished]) -> list[tuple[str, ErrorCode | None]]:
    return [(end.stored.command.id, reported(end).code) for end in finished]


def reported(end: Finished) -> Feedback:
    assert isinstance(end.result, EncodedFeedback)
    return end.result.feedback


def run_one(execute: Execute, **members: Any) -> Feedback:
    runs = executor(execute)
    runs.execute([stored("a", **members)])
    (end,) = runs.take_finished()
    return reported(end)


def test_batch_runs_in_order_one_at_a_time() -> None:
    order: list[str] = []
    runs = executor(lambda command, *_: order.append(command.id) or Result("Done."))  # type: ignore[func-returns-value]
    runs.execute([stored(name) for name in "abc"])
    assert order == ["a", "b", "c"]
    assert endings(runs.take_finished()) == [("a", None), ("b", None), ("c", None)]
    assert not runs.busy


def test_progress_is_that_of_the_running_command_alone() -> None:
    seen: list[RunningProgress | None] = []

    def reports(command: Command, _: Any, context: Context) -> Result:
        seen.append(runs.progress)
        context.progress.report("x" * 100, 1, 3)
        seen.append(runs.progress)
        return Result("Done.")

    runs = executor(reports)
    runs.execute([stored(name) for name in "ab"])
    reported = RunningProgress("x" * 63 + "…", 33)
    assert seen == [None, reported, None, reported]
    assert runs.progress is None


def test_handler_gets_typed_parameters() -> None:
    assert run_one(lambda _, parameters, __: Result(repr(parameters)), parameters={"seconds": 2}).message == (
        "Parameters(seconds=2.0)"
    )
    refused = run_one(done, parameters={"minutes": 2})
    assert (refused.code, "minutes" in refused.message) == (ErrorCode.INVALID, True)


def test_handler_that_raises_gives_an_error_and_the_next_command_runs() -> None:
    def breaks(*_: Any) -> Result:
        raise KeyError("x")

    broken = run_one(breaks)
    assert (broken.code, "KeyError: 'x'" in broken.message) == (ErrorCode.FAILED, True)


class Indescribable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("raised", "described"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (Indescribable(), "Indescribable."),
        (FileNotFoundError(2, "No such file", "log-\udcff.gz"), "log-\\udcff.gz"),
        (ValueError("log-\udcff.gz"), "log-\\udcff.gz"),
    ],
)
def test_whatever_a_handler_raises_is_its_commands_error(raised: BaseException, described: str) -> None:
    def breaks(*_: Any) -> Result:
        raise raised

    broken = run_one(breaks)
    assert (broken.code, described in broken.message) == (ErrorCode.FAILED, True)


def test_handler_that_returns_nothing_has_failed() -> None:
    broken = run_one(lambda *_: None)  # type: ignore[arg-type,return-value]
    assert (broken.code, "NoneType" in broken.message) == (ErrorCode.FAILED, True)


def test_consumer_error_becomes_the_results_message() -> None:
    def fails(*_: Any) -> Result:
        raise ServiceError("The service could not be started.")

    failed = run_one(fails)
    assert (failed.code, failed.message) == (ErrorCode.FAILED, "The service could not be started.")


def test_error_after_the_deadline_is_a_timeout() -> None:
    clock = TurnedClock()

    def too_slow(_: Command, __: Any, context: Context) -> Result:
        clock.turn(11.0)
        raise ServiceError("systemctl did not end in time.")

    runs = executor(too_slow, clock=clock)
    runs.execute([stored("a"), stored("b", timeout_s=20.0)])
    assert endings(runs.take_finished()) == [("a", ErrorCode.TIMED_OUT), ("b", ErrorCode.FAILED)]


def test_expiry_is_checked_when_each_command_starts() -> None:
    clock = TurnedClock()
    runs = executor(lambda *_: clock.turn(60.0) or Result("Done."), clock=clock)  # type: ignore[func-returns-value]
    soon = clock.now() + timedelta(seconds=30)
    runs.execute([stored("a", expires_at=soon), stored("b", expires_at=soon)])
    assert endings(runs.take_finished()) == [("a", None), ("b", ErrorCode.EXPIRED)]


def test_waiting_command_of_a_batch_is_cancelled_without_running() -> None:
    ran: list[str] = []

    def cancel_the_next(command: Command, *_: Any) -> Result:
        ran.append(command.id)
        assert runs.cancel("b")
        return Result("Done.")

    runs = executor(cancel_the_next)
    runs.execute([stored("a"), stored("b")])
    assert endings(runs.take_finished()) == [("a", None), ("b", ErrorCode.CANCELLED)]
    assert ran == ["a"]
    assert not runs.cancel("a")


@pytest.mark.parametrize("unfit", ["cancelled", "expired"])
def test_command_begun_by_an_earlier_process_is_interrupted(unfit: str) -> None:
    clock = TurnedClock()
    work: list[Callable[[], None]] = []
    runs = executor(done, spawn=work.append, clock=clock)
    again = structs.replace(stored("a", expires_at=clock.now() + timedelta(seconds=9)), begun_by="i0")
    runs.execute([again])
    clock.turn(1.0 if unfit == "cancelled" else 10.0)
    assert unfit == "expired" or runs.cancel("a")
    work[0]()
    (end,) = runs.take_finished()
    assert (reported(end).code, unfit in reported(end).message) == (ErrorCode.INTERRUPTED, True)


def test_running_command_sees_its_cancel() -> None:
    begun, ended = threading.Event(), threading.Event()

    def waits(_: Command, __: Any, context: Context) -> Result:
        begun.set()
        assert context.cancelled.wait(20)
        return Result("Stopped half-way.", code=ErrorCode.CANCELLED)

    runs = executor(waits, spawn=in_thread, clock=TurnedClock(), ended=ended)
    runs.execute([stored("a")])
    assert begun.wait(20)
    assert runs.running == "a"
    assert runs.cancel("a")
    assert ended.wait(20)
    assert endings(runs.take_finished()) == [("a", ErrorCode.CANCELLED)]


def test_cancel_of_a_command_is_not_seen_by_the_next_ones() -> None:
    seen: list[bool] = []

    def cancels_itself(command: Command, _: Any, context: Context) -> Result:
        seen.append(context.cancelled.is_set())
        assert command.id != "a" or runs.cancel("a")
        return Result("Done.")

    runs = executor(cancels_itself)
    runs.execute([stored("a"), stored("b"), stored("c")])
    assert (len(runs.take_finished()), seen) == (3, [False] * 3)


def test_hung_handler_is_abandoned_and_blocks_nothing() -> None:
    clock, release = TurnedClock(), threading.Event()
    begun: dict[str, threading.Event] = {"a": threading.Event(), "b": threading.Event()}
    ended = threading.Event()

    def hangs(command: Command, *_: Any) -> Result:
        begun[command.id].set()
        if command.id == "a":
            release.wait(20)
        return Result("Done.")

    runs = executor(hangs, spawn=in_thread, clock=clock, ended=ended)
    runs.execute([stored("a"), stored("b")])
    assert begun["a"].wait(20)
    assert runs.take_finished() == []
    assert runs.next_deadline() == pytest.approx(clock.monotonic() + 15.0)
    clock.turn(15.1)
    (cut,) = runs.take_finished()
    assert (cut.stored.command.id, reported(cut).code) == ("a", ErrorCode.TIMED_OUT)
    assert "may still have an effect" in reported(cut).message
    assert begun["b"].wait(20)
    assert ended.wait(20)
    assert runs.cut_off == "a"
    release.set()
    assert endings(runs.take_finished()) == [("b", None)]
    wait_for(lambda: runs.cut_off is None, "the end of the handler that was cut off")


def test_command_of_a_batch_is_rejected_if_its_key_is_revoked_before_its_turn() -> None:
    runs = executor(done)
    runs.execute([stored("a"), structs.replace(stored("b"), signed_by=("old",))])
    assert endings(runs.take_finished()) == [("a", None), ("b", ErrorCode.REJECTED)]


def test_batch_for_which_there_is_no_thread_is_started_later() -> None:
    threads: list[bool] = [False, False, True]

    def spawn(work: Callable[[], None]) -> None:
        if not threads.pop(0):
            raise RuntimeError("can't start new thread")
        work()

    runs = executor(done, spawn=spawn)
    runs.execute([stored("a")])
    assert runs.take_finished() == []
    assert (endings(runs.take_finished()), runs.busy) == ([("a", None)], False)


def test_request_for_a_new_process_is_returned() -> None:
    runs = executor(lambda *_: AgentRestart())
    runs.execute([stored("a")])
    (end,) = runs.take_finished()
    assert end.result == AgentRestart()


def test_request_for_a_new_process_fails_if_that_would_not_start() -> None:
    runs = executor(lambda *_: AgentRestart(), test_replacement=lambda *_: Result("No.", code=ErrorCode.FAILED))
    runs.execute([stored("a")])
    assert endings(runs.take_finished()) == [("a", ErrorCode.FAILED)]


def test_other_program_is_tested_by_its_own_handler() -> None:
    runs = executor(lambda *_: AgentRestart("/opt/acm/acm-agent"), test_replacement=lambda *_: Result("No."))
    runs.execute([stored("a")])
    (end,) = runs.take_finished()
    assert end.result == AgentRestart("/opt/acm/acm-agent")
