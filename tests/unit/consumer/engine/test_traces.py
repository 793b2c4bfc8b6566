"""What the agent keeps of a trace, and the spans of a command's run and of its result."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from broker.contract.codec import encode
from broker.contract.messages import Ack, Command
from broker.contract.states import ErrorCode, State
from broker.contract.topics import Topics
from broker.contract.trace_context import TraceContext
from broker.tracing.port import Tracer
from consumer.engine.executor import Executor
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.gaps import Gaps
from consumer.engine.outbox import FeedbackOutbox
from consumer.engine.receiver import CommandReceiver
from consumer.engine.start_check import StartCheck
from consumer.engine.traces import AgentTraces
from consumer.handler import AgentRestart, Context, Handler, Interruption, Result
from consumer.ports import StoredCommand
from consumer.services import NoService
from consumer.trust.verification import NoTrust, Verifier
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.refusals import KeptRefusals
from tests.support.makers import NOW, command, inbound_on, stored_result
from tests.support.traced import CALLER, CALLER_SPAN, CALLER_TRACE, KeptSpans
from tests.support.waiting import wait_for

SENT = TraceContext(CALLER, "vendor=1")
REPORTS = FeedbackFactory("web-01", "i1", "g1")


@dataclass(frozen=True)
class Nothing:
    """No parameters."""


@pytest.fixture
def kept() -> KeptSpans:
    return KeptSpans()


def traces(tracer: Tracer, clock: TurnedClock | None = None) -> AgentTraces:
    return AgentTraces(tracer, "web-01", Topics(), clock or TurnedClock())


@pytest.mark.parametrize(
    ("context", "keeps_traces", "stored"),
    [
        (SENT, True, SENT.text),
        (SENT, False, None),
        (None, True, None),
        (TraceContext(CALLER[:-1] + "0"), True, None),
    ],
    ids=["recorded", "without traces", "none", "not recorded"],
)
def test_recorded_context_is_stored_with_its_commands(
    store: MemoryCommandStore,
    clock: TurnedClock,
    context: TraceContext | None,
    keeps_traces: bool,
    stored: str | None,
) -> None:
    verifier = Verifier("web-01", NoTrust(), clock, accept_unsigned=True)
    gaps = Gaps(store, REPORTS, clock)
    receiver = CommandReceiver(
        store, REPORTS, clock, verifier, NoTrust(), KeptRefusals(), gaps, keeps_traces=keeps_traces
    )
    frame = encode([command("a", 1), command("b", 2)])
    receiver.receive([inbound_on("acm/web-01/command", frame, trace=context)])
    assert [it.trace for it in (*store.get_next_commands(9), *receiver.stored)] == [stored] * 4


def executor(
    execute: Callable[..., Any],
    traces: AgentTraces | None,
    clock: TurnedClock,
    spawn: Callable[[Callable[[], None]], None] = lambda work: work(),
) -> Executor:
    return Executor(
        {"act": Handler("act", Interruption.RERUN, Nothing, execute)},
        Context(clock, NoService(), Path("/nowhere")),
        spawn,
        incarnation="i1",
        default_timeout_s=10.0,
        grace_s=5.0,
        report=REPORTS.result_of,
        start_check=StartCheck(clock, lambda _: None),
        on_finished=lambda: None,
        traces=traces,
    )


def begun(name: str = "a", trace: str | None = SENT.text) -> StoredCommand:
    asked = replace(command(name), type="act")
    return StoredCommand(f"c/{name}", asked, State.PROCESSING, NOW, NOW, begun_by="i1", trace=trace)


def test_run_is_a_span_that_programs_and_the_result_continue(kept: KeptSpans) -> None:
    seen: list[TraceContext | None] = []
    environments: list[dict[str, str]] = []

    def execute(command: Command, _: Nothing, context: Context) -> Result:
        seen.append(context.trace)
        environments.append(dict(context.bounds().environment))
        return Result("No.", code=ErrorCode.FAILED)

    runs = executor(execute, traces(kept.tracer()), TurnedClock())
    runs.execute([begun(), begun("b", None), begun("c", "altered")])
    ended = [it.stored.trace for it in runs.take_finished()]
    (span,) = kept.spans
    run = TraceContext(f"00-{CALLER_TRACE}-{span['id']}-01", "vendor=1")
    assert (span["name"], span["kind"], span["parent"]) == ("process act", "CONSUMER", CALLER_SPAN)
    assert (span["is_error"], span["attributes"]["error.type"]) == (True, "failed")
    assert (seen, ended) == ([run, None, None], [run.text, None, "altered"])
    assert environments == [{"TRACEPARENT": run.traceparent, "TRACESTATE": "vendor=1"}, {}, {}]


def test_run_that_requests_a_new_process_ends_without_an_error(kept: KeptSpans) -> None:
    runs = executor(lambda *_: AgentRestart(), traces(kept.tracer()), TurnedClock())
    runs.execute([begun()])
    (span,) = kept.spans
    assert (span["is_error"], span["attributes"]["acm.outcome"]) == (False, "new_process")


def test_run_that_is_cut_off_is_an_error_whenever_its_handler_ends(kept: KeptSpans) -> None:
    began, goes_on, clock = threading.Event(), threading.Event(), TurnedClock()

    def hangs(*_: Any) -> Result:
        began.set()
        goes_on.wait(60)
        return Result("Late.")

    threads: list[threading.Thread] = []

    def spawn(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()

    runs = executor(hangs, traces(kept.tracer()), clock, spawn)
    runs.execute([begun()])
    wait_for(began.is_set, "the handler to begin")
    clock.turn(16.0)
    (ended,) = runs.take_finished()
    goes_on.set()
    threads[0].join(30)
    (span,) = kept.spans
    assert (span["is_error"], span["attributes"]["acm.outcome"]) == (True, "error")
    assert span["attributes"]["error.type"] == "timed_out"
    assert ended.stored.trace == f"00-{CALLER_TRACE}-{span['id']}-01 vendor=1"


def test_without_traces_a_run_is_no_span(kept: KeptSpans) -> None:
    runs = executor(lambda *_: Result("Done."), None, TurnedClock())
    runs.execute([begun()])
    assert [it.stored.trace for it in runs.take_finished()] == [SENT.text]


def test_arrival_is_a_span_of_the_time_until_the_commit(kept: KeptSpans) -> None:
    clock = TurnedClock()
    arrived = StoredCommand("c/a", command("a"), State.PENDING, clock.now(), trace=SENT.text)
    clock.turn(2.0)
    traces(kept.tracer(), clock).stored([arrived, StoredCommand("c/b", command("b"), State.PENDING, clock.now())])
    (span,) = kept.spans
    assert (span["name"], span["kind"], span["parent"]) == (f"receive {arrived.command.type}", "CLIENT", CALLER_SPAN)
    assert span["end"] - span["start"] >= 2_000_000_000


def complete(store: MemoryCommandStore, name: str, trace: str | None) -> StoredCommand:
    return store.mark_completed(store.store_command(command(name), NOW, (), trace), stored_result(name))


def test_result_of_a_trace_is_a_message_of_its_own(store: MemoryCommandStore, clock: TurnedClock) -> None:
    outbox = FeedbackOutbox(store, clock, lambda _: 2.0, keeps_traces=True)
    for name, trace in (("a", None), ("b", SENT.text), ("c", "altered")):
        outbox.add_result(complete(store, name, trace))
    assert (len(outbox.take_due()), [(it.command_id, it.trace, it.is_first) for it in outbox.take_traced()]) == (
        2,
        [("b", SENT, True)],
    )
    clock.turn(2.0)
    assert (len(outbox.take_due()), [(it.command_id, it.is_first) for it in outbox.take_traced()]) == (
        2,
        [("b", False)],
    )
    assert outbox.acknowledged_by([Ack("b", "d")]) == ["b"]
    after_a_restart = FeedbackOutbox(store, clock, lambda _: 2.0, keeps_traces=True)
    after_a_restart.load()
    assert len(after_a_restart.take_due()) == 2
    assert [(it.command_id, it.trace, it.is_first) for it in after_a_restart.take_traced()] == [("b", SENT, False)]


def test_without_traces_all_results_share_a_message(store: MemoryCommandStore, clock: TurnedClock) -> None:
    outbox = FeedbackOutbox(store, clock)
    for name in "ab":
        outbox.add_result(complete(store, name, SENT.text))
    assert (len(outbox.take_due()), outbox.take_traced()) == (2, [])


def test_first_sending_of_a_result_is_a_span(store: MemoryCommandStore, clock: TurnedClock, kept: KeptSpans) -> None:
    outbox = FeedbackOutbox(store, clock, lambda _: 2.0, keeps_traces=True)
    outbox.add_result(complete(store, "a", SENT.text))
    spans, sent = traces(kept.tracer()), list[TraceContext]()
    for _ in range(2):
        outbox.take_due()
        for result in outbox.take_traced():
            spans.sending(result, sent.append)
        clock.turn(2.0)
    (span,) = kept.spans
    assert (span["name"], span["kind"], span["parent"]) == ("send result", "PRODUCER", CALLER_SPAN)
    assert [it.span_id for it in sent] == [span["id"], CALLER_SPAN]
