"""Runs commands one at a time on a worker thread, each with a deadline, and turns every outcome into a Result."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import structlog

from broker.contract.commands import InvalidParameters, parse_parameters
from broker.contract.messages import Command, RunningProgress
from broker.contract.states import ErrorCode
from broker.errors import ExposedFileError
from broker.system.log_throttle import LogThrottle
from broker.tracing.port import Span
from consumer.engine.start_check import StartCheck, not_run_again
from consumer.engine.traces import AgentTraces
from consumer.errors import ConsumerError
from consumer.handler import AgentRestart, Context, Handler, Interruption, ReplacementTest, Result
from consumer.ports import Clock, EncodedFeedback, StoredCommand
from consumer.system.progress import HandlerProgress

__all__ = [
    "Executor",
    "Finished",
    "Spawn",
]


_log = structlog.get_logger(__name__)
_WAKE_AFTER_S = 0.01
Spawn = Callable[[Callable[[], None]], None]
Report = Callable[[StoredCommand, Any, datetime], EncodedFeedback]


class Finished(msgspec.Struct, frozen=True):
    """A command that ended, and its result; `AgentRestart` requests a new process before there is a result."""

    stored: StoredCommand
    result: EncodedFeedback | AgentRestart


@dataclass
class _Run:
    """One batch on a worker thread, shared with it under `lock`. If `abandoned`, its thread's result is ignored."""

    waiting: deque[StoredCommand]
    lock: threading.Lock = field(default_factory=threading.Lock)
    finished: list[Finished] = field(default_factory=list)
    current: StoredCommand | None = None
    deadline: float = float("inf")
    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: HandlerProgress = field(default_factory=HandlerProgress)
    cancelled_ids: set[str] = field(default_factory=set)
    span: Span | None = None
    abandoned: bool = False
    is_started: bool = False


class Executor:
    """Executes the commands marked as processing. The worker calls `on_begin` with each, and `on_finished` to wake
    the agent.

    `report` makes the feedback of what a handler returned, whatever that is; it is called by the worker, as is
    `test_replacement` when a handler requests a new process of the same program. `traces` makes the spans of runs.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler[Any]],
        context: Context,
        spawn: Spawn,
        *,
        incarnation: str,
        default_timeout_s: float,
        grace_s: float,
        report: Report,
        start_check: StartCheck,
        on_finished: Callable[[], None],
        on_begin: Callable[[StoredCommand], None] = lambda _: None,
        test_replacement: ReplacementTest | None = None,
        traces: AgentTraces | None = None,
    ) -> None:
        self.handlers = handlers
        self._traces = traces
        # Once for all commands: dataclasses.replace for each would take three times as long.
        shared = {member.name: getattr(context, member.name) for member in fields(context)}
        self._context_until = partial(Context, **{**shared, "deadline": 0.0, "cancelled": None, "progress": None})
        self._clock: Clock = context.clock
        self._spawn = spawn
        self._incarnation = incarnation
        self._default_timeout_s = default_timeout_s
        self._grace_s = grace_s
        self._report = report
        self._start_check = start_check
        self._on_finished, self._on_begin = on_finished, on_begin
        self._test_replacement = test_replacement
        self._run: _Run | None = None
        self._hung: dict[int, str] = {}
        self._throttle = LogThrottle(self._clock.monotonic)

    @property
    def cut_off(self) -> str | None:
        """The id of a command whose handler was cut off and still runs, or None."""
        return next(iter(list(self._hung.values())), None)

    @property
    def busy(self) -> bool:
        """Whether a batch is running or has results that are not fetched yet."""
        return self._run is not None

    @property
    def running(self) -> str | None:
        """The id of the command that runs now."""
        run = self._run
        current = run.current if run else None
        return current.command.id if current else None

    @property
    def progress(self) -> RunningProgress | None:
        """How far the command that runs now is, as its handler reports it; None if it does not."""
        run = self._run
        return run.progress.current if run and run.current else None

    def may_share_commit(self, stored: StoredCommand) -> bool:
        """Whether the command is safe to repeat, so that several may be marked as processing by one commit."""
        handler = self.handlers.get(stored.command.type)
        return handler is not None and handler.interruption is Interruption.RERUN

    def execute(self, batch: Sequence[StoredCommand]) -> None:
        """Start a batch of commands that are committed as processing; they run one after the other."""
        assert self._run is None
        self._run = run = _Run(deque(batch))
        self._start(run)

    def _start(self, run: _Run) -> None:
        try:
            self._spawn(lambda: self._work(run))
            run.is_started = True
        except RuntimeError as error:  # no thread can be had now; the next step tries again
            self._throttle.warn(_log, "no_thread_for_commands", reason=str(error))

    def take_finished(self) -> list[Finished]:
        """Return the commands that have ended since the last call; abandons one that exceeds deadline and grace."""
        run = self._run
        if run is None:
            return []
        if not run.is_started:
            self._start(run)
        with run.lock:
            finished, run.finished = run.finished, []
            overdue = run.current is not None and self._clock.monotonic() > run.deadline + self._grace_s
            if overdue:
                finished.append(self._abandon(run))
            if run.current is None and not run.waiting:
                self._run = None
        if overdue and run.waiting:
            self._run = None
            self.execute(run.waiting)
        return finished

    # design.md: "A hung handler is cut off"
    def _abandon(self, run: _Run) -> Finished:
        stored, run.current, run.abandoned = run.current, None, True
        assert stored is not None
        self._hung[id(run)] = stored.command.id
        _log.error("handler_abandoned", command_id=stored.command.id, type=stored.command.type)
        message = (
            f"The handler did not end within {self._timeout(stored.command):g} s, nor when it was cancelled; "
            "it was abandoned and may still have an effect."
        )
        return self._with_span_ended(run, self._ended(stored, Result(message, code=ErrorCode.TIMED_OUT)))

    def _ended(self, stored: StoredCommand, result: Any) -> Finished:
        wants_process = isinstance(result, AgentRestart) and isinstance(result.program, str | None)
        return Finished(stored, result if wants_process else self._report(stored, result, self._clock.now()))

    def cancel(self, command_id: str) -> bool:
        """Cancel a command of the batch; return False if the batch does not have it."""
        run = self._run
        if run is None:
            return False
        with run.lock:
            if run.current is not None and run.current.command.id == command_id:
                run.cancelled.set()
                return True
            if any(stored.command.id == command_id for stored in run.waiting):
                run.cancelled_ids.add(command_id)
                return True
        return False

    def next_deadline(self) -> float | None:
        """Return when (monotonic seconds) the running command is abandoned, or None."""
        run = self._run
        return run.deadline + self._grace_s if run and run.current else None

    def _timeout(self, command: Command) -> float:
        return command.timeout_s or self._default_timeout_s

    def _work(self, run: _Run) -> None:
        last_wake = self._clock.monotonic()
        while (begun := self._begin(run)) is not None:
            stored, context = begun
            self._on_begin(stored)
            was_cancelled = stored.command.id in run.cancelled_ids
            if run.span is None:
                ended = self._ended(stored, self._result_of(stored, context, was_cancelled))
            else:
                ended = self._traced(run, run.span, stored, context, was_cancelled)
            with run.lock:
                if run.abandoned:
                    self._hung.pop(id(run), None)
                    return
                run.current = None
                run.finished.append(ended)
            if self._clock.monotonic() - last_wake > _WAKE_AFTER_S:
                last_wake = self._clock.monotonic()
                self._on_finished()
        self._on_finished()

    def _begin(self, run: _Run) -> tuple[StoredCommand, Context] | None:
        with run.lock:
            if run.abandoned or not run.waiting:
                return None
            run.current = stored = run.waiting.popleft()
            run.deadline = self._clock.monotonic() + self._timeout(stored.command)
            if run.cancelled.is_set():  # of the command before; a new event for each would be 3 % of a command's cost
                run.cancelled = threading.Event()
            run.progress.clear()
            context = self._context_until(deadline=run.deadline, cancelled=run.cancelled, progress=run.progress)
            run.span = None
            if stored.trace is None or self._traces is None:
                return stored, context
            run.span = self._traces.running(stored)
            return stored, replace(context, trace=run.span.context if run.span is not None else None)

    def _traced(self, run: _Run, span: Span, stored: StoredCommand, context: Context, was_cancelled: bool) -> Finished:
        assert self._traces is not None
        with self._traces.using(span):
            result = self._result_of(stored, context, was_cancelled)
        return self._with_span_ended(run, self._ended(stored, result))

    def _with_span_ended(self, run: _Run, ended: Finished) -> Finished:
        """End the span of a run, if it has one; its result then belongs to that span."""
        span = run.span
        if span is None or self._traces is None:
            return ended
        self._traces.ended(span, None if isinstance(ended.result, AgentRestart) else ended.result.feedback)
        if span.context is None:
            return ended
        return Finished(msgspec.structs.replace(ended.stored, trace=span.context.text), ended.result)

    def _result_of(self, stored: StoredCommand, context: Context, was_cancelled: bool) -> Any:
        command = stored.command
        try:
            result = self._returned(stored, context, was_cancelled)
            # design.md: "What works ends once its replacement was seen to start"
            if self._test_replacement is not None and result == AgentRestart():
                return self._test_replacement(context) or result
            return result
        except InvalidParameters as error:
            return Result(str(error), code=ErrorCode.INVALID)
        except (ConsumerError, ExposedFileError) as error:
            return Result(str(error), code=context.failure_code())
        except (Exception, SystemExit) as error:
            _log.exception("handler_failed", command_id=command.id, type=command.type)
            return Result(f"The handler raised {type(error).__name__}{_described(error)}", code=ErrorCode.FAILED)

    def _returned(self, stored: StoredCommand, context: Context, was_cancelled: bool) -> Any:
        command, handler = stored.command, self.handlers[stored.command.type]
        began_before = stored.begun_by != self._incarnation
        if began_before and handler.probe is not None:
            return handler.probe(stored, context)
        failed = self._start_check.unfit(stored, was_cancelled=was_cancelled)
        if failed is not None:
            return not_run_again(failed) if began_before else failed
        parameters = parse_parameters(
            command.type, handler.parameters, command.parameters, foreign_form=command.original is not None
        )
        return handler.execute(command, parameters, context)


def _described(error: BaseException) -> str:
    try:
        return f": {error}"
    except Exception:  # a handler's own exception class may fail to describe itself
        return "."
