"""The agent between the wire and the handlers, driven by calls: it owns no thread, no socket and no signal."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from broker.contract.states import ControlAction, Problem
from broker.contract.topics import Channel
from broker.mqtt.inbound import Inbound
from consumer.comms.blob_reader import BlobReader
from consumer.comms.client import AgentCommsClient
from consumer.engine.command_manager import CommandManager, Departure
from consumer.engine.executor import Executor, Spawn
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.gaps import Gaps
from consumer.engine.inbox import AgentInbox, SignedAck
from consumer.engine.outbox import FeedbackOutbox
from consumer.engine.process_renewal import ProcessRenewal
from consumer.engine.readiness import Readiness
from consumer.engine.receiver import CommandReceiver
from consumer.engine.refusals import Refusals
from consumer.engine.sealing import shortened
from consumer.engine.start_check import StartCheck
from consumer.engine.status import StatusBuilder
from consumer.engine.traces import AgentTraces
from consumer.engine.watch import AgentWatch
from consumer.errors import StoreFull, StoreLocked
from consumer.handler import Context, Handler, Replacement, ReplacementTest
from consumer.observer import LogObserver, Observer
from consumer.ports import BackgroundTask, Clock, CommandStore, Service
from consumer.settings import AgentConfig
from consumer.store.damage import DISK_FULL
from consumer.system.leftovers import Leftovers
from consumer.system.partial_files import PARTIAL_FILES, drop_stale_files
from consumer.trust.ports import TrustedKeys
from consumer.trust.side_by_side import SideBySide
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import Verifier

__all__ = [
    "AgentCore",
    "AgentDependencies",
    "HandlerRuntime",
]


_IDLE_WAIT_S = 2.0
_CUT_OFF = "The handler of the command {} was cut off after its deadline and still runs, beside later commands."
_HOUSEKEEPING_INTERVAL_S = 3600.0


@dataclass(frozen=True)
class AgentDependencies:
    """The parts that the core uses. It steps the `tasks`, and sets `readiness.has_stored`.

    Without `traces`, nothing is kept of the traces that commands are part of.
    """

    store: CommandStore
    comms: AgentCommsClient
    clock: Clock
    trusted_clock: TrustedClock
    trust: TrustedKeys
    departure: Departure
    readiness: Readiness
    tasks: Sequence[BackgroundTask] = ()
    watch: AgentWatch = field(default_factory=AgentWatch)
    traces: AgentTraces | None = None


@dataclass(frozen=True)
class HandlerRuntime:
    """Where handlers run: `spawn` runs one on another thread, which calls `wake` when it has ended.

    `side_by_side`: `spawn` may be used to verify signatures as well, and waited for.
    `renews_process`: the core requests a new process when no command waits and a handler that was cut off still runs.
    `test_replacement` is called before the process is replaced by the same program, which is then not done if it fails.
    """

    service: Service
    spawn: Spawn
    wake: Callable[[], None] = lambda: None
    side_by_side: bool = False
    renews_process: bool = False
    test_replacement: ReplacementTest | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    observer: Observer = field(default_factory=LogObserver)
    leftovers: Leftovers = field(default_factory=Leftovers)


class AgentCore:
    """One incarnation of an agent. Call `recover` once, then `step` at least every `wait_s()` seconds.

    Each step is one commit: of messages received, commands that ended and commands that begin next. Nothing is
    acknowledged, sent or begun before the commit. `step` raises StoreError when the store fails: nothing is lost, but
    the process must restart. While the disk is full or another process locks the store, it continues, and the status
    names the problem.
    """

    # design.md: "A turn is one commit"

    def __init__(
        self,
        config: AgentConfig,
        parts: AgentDependencies,
        runtime: HandlerRuntime,
        status: StatusBuilder,
        handlers: Mapping[str, Handler[Any]],
        *,
        incarnation: str,
    ) -> None:
        store, clock = parts.store, parts.clock
        self._parts, self._status, self._leftovers = parts, status, runtime.leftovers
        self._partial_files = Path(config.state) / PARTIAL_FILES
        self._housekeeping_at = 0.0
        self._server_clock = parts.trusted_clock
        self._blobs = BlobReader(parts.comms.request_blob, clock)
        verifier = Verifier(
            config.agent,
            parts.trust,
            self._server_clock,
            accept_unsigned=config.accept_unsigned,
            side_by_side=SideBySide(runtime.spawn) if runtime.side_by_side else None,
        )
        refusals = Refusals(status.problems, clock.monotonic, parts.watch)
        self._inbox = AgentInbox(verifier, refusals)
        feedback = FeedbackFactory(
            config.agent,
            incarnation,
            store.store_generation,
            {name: handler.parameters for name, handler in handlers.items()},
            accepts_unsigned=config.accept_unsigned or None,
        )
        start_check = StartCheck(self._server_clock, verifier.check_signers)
        context = self._build_context(config, runtime)
        self._executor = self._build_executor(config, runtime, context, handlers, feedback, start_check, parts)
        self._gaps = Gaps(store, feedback, clock)
        self._receiver = CommandReceiver(
            store,
            feedback,
            self._server_clock,
            verifier,
            parts.trust,
            refusals,
            self._gaps,
            keeps_traces=parts.traces is not None,
        )
        self._outbox = FeedbackOutbox(store, clock, watch=parts.watch, keeps_traces=parts.traces is not None)
        self._manager = CommandManager(
            store,
            self._executor,
            self._outbox,
            feedback,
            self._server_clock,
            parts.departure,
            start_check=start_check,
            renewal=ProcessRenewal(context, runtime.spawn, runtime.wake, runtime.test_replacement)
            if runtime.renews_process
            else None,
        )

    def _build_context(self, config: AgentConfig, runtime: HandlerRuntime) -> Context:
        return Context(
            self._server_clock,
            runtime.service,
            Path(config.state),
            stopping=runtime.stopping,
            observer=runtime.observer,
            download=config.download,
            confinement=config.programs,
            blobs=self._blobs,
            max_result_bytes=lambda: self._parts.comms.filled_frame_bytes(Channel.FEEDBACK),
            leftovers=runtime.leftovers,
        )

    @staticmethod
    def _build_executor(
        config: AgentConfig,
        runtime: HandlerRuntime,
        context: Context,
        handlers: Mapping[str, Handler[Any]],
        feedback: FeedbackFactory,
        start_check: StartCheck,
        parts: AgentDependencies,
    ) -> Executor:
        return Executor(
            handlers,
            context,
            runtime.spawn,
            incarnation=feedback.incarnation,
            default_timeout_s=config.default_timeout_s,
            grace_s=config.kill_grace_s,
            report=feedback.result_of,
            start_check=start_check,
            on_begin=parts.watch.begins,
            on_finished=runtime.wake,
            test_replacement=runtime.test_replacement,
            traces=parts.traces,
        )

    @property
    def replacement(self) -> Replacement | None:
        """The replacement of this process that a command requested, or None; once set, no command begins."""
        return self._manager.replacement

    def recover(self, restarted_by: str | None = None) -> None:
        """Complete or resume the commands that an earlier process left in processing.

        `restarted_by` is the id of the one that replaced the process, so that it was not interrupted.
        """
        with contextlib.suppress(StoreFull, StoreLocked):  # a server that sees the statuses go back asks for a report
            self._parts.store.count_start()
            self._parts.readiness.has_stored = self._parts.store.has_room
        self._parts.watch.committed([], self._manager.recover(restarted_by))

    def connected(self) -> None:
        """Publish the status and send every result again: an earlier connection may have lost them."""
        self._inbox.take()  # the broker delivers it again, and takes no PUBACK of an earlier connection
        self._status.publish_again()
        self._outbox.requeue_all()
        self._blobs.connected()

    def wait_s(self) -> float:
        """Return how many seconds the next step can wait if nothing arrives earlier."""
        dues = (
            self._outbox.next_due(),
            self._gaps.next_due(),
            self._executor.next_deadline(),
            self._status.next_due(),
            *(task.next_due() for task in self._parts.tasks),
        )
        now = self._parts.clock.monotonic()
        return max(0.0, min([_IDLE_WAIT_S, *(due - now for due in dues if due is not None)]))

    def step(self, arrived: Sequence[Inbound]) -> None:
        """Receive these messages and do the work that is due."""
        parts = self._parts
        self._pass_on_chunks(self._inbox.put(arrived))
        for task in parts.tasks:
            task.step()
        self._commit_and_act()
        if not parts.readiness.has_stored:
            self._check_store()
        status = self._status.take_due(self._executor.running)
        if status is not None:
            parts.comms.publish_status(status)
        parts.watch.turn_ended()
        if parts.clock.monotonic() >= self._housekeeping_at or not parts.store.has_room:
            self._keep_house()

    def _keep_house(self) -> None:
        now = self._parts.clock.now()
        self._housekeeping_at = self._parts.clock.monotonic() + _HOUSEKEEPING_INTERVAL_S
        with contextlib.suppress(StoreFull, StoreLocked):  # retried later
            if self._parts.store.tidy(now):
                self._housekeeping_at = 0.0  # some each step
        drop_stale_files(self._partial_files, now, self._leftovers)

    def publish_offline(self) -> None:
        """Publish that the agent is offline."""
        self._parts.comms.publish_status(self._status.offline(self._executor.running))

    def _pass_on_chunks(self, chunks: Sequence[Inbound]) -> None:
        """Give chunks of blobs to their readers; they need no commit."""
        for chunk in self._inbox.chunks(chunks):
            self._blobs.receive(chunk)
        self._parts.comms.acknowledge(chunks)

    def _check_store(self) -> None:
        try:
            self._parts.store.check()
            self._parts.readiness.has_stored = True
        except StoreFull as error:
            self._status.problems.report(Problem.STORE_FULL, str(error))
        except StoreLocked as error:
            self._status.problems.report(Problem.STORE_LOCKED, str(error))

    def _commit_and_act(self) -> None:
        problems = self._status.problems
        try:
            self._commit()
            problems.report(Problem.STORE_FULL, None if self._parts.store.has_room else DISK_FULL)
            problems.report(Problem.STORE_LOCKED, None)
        except StoreFull as error:  # nothing was committed; the next step tries again
            problems.report(Problem.STORE_FULL, str(error))
        except StoreLocked as error:
            problems.report(Problem.STORE_LOCKED, str(error))
        self._send_feedback()
        self._update_status()

    def _commit(self) -> None:
        store = self._parts.store
        with store.transaction():
            feedback = self._receiver.receive(self._inbox.commands())
            acks, controls = self._inbox.acks(), self._inbox.controls()
            self._correct_clock(acks)
            self._parts.readiness.round_trip.observe([signed.ack for signed in acks])
            cancels = [it.command_id for it in controls if it.action is ControlAction.CANCEL]
            decisions = self._manager.decide([signed.ack for signed in acks], cancels)
            self._save_time_sample(busy=bool(self._inbox or store.pending_count()))
        self._outbox.add_notices(feedback)
        watch = self._parts.watch
        watch.stored(self._receiver.stored)
        self._manager.carry_out(decisions)
        watch.committed(decisions.batch, decisions.results)
        watch.acknowledged(decisions.acknowledged)
        for control in controls:
            if control.action is ControlAction.REPORT:
                self._status.report(control.command_id)
        self._parts.comms.acknowledge(self._inbox.take())

    def _send_feedback(self) -> None:
        comms = self._parts.comms
        max_bytes = comms.max_frame_bytes(Channel.FEEDBACK)
        gaps = [gap.encoded for gap in self._gaps.take_due()]
        if gaps:
            self._parts.watch.gap_reported()
        comms.send_feedback([shortened(item, max_bytes) for item in (*gaps, *self._outbox.take_due())])
        comms.send_feedback(self._parts.readiness.round_trip.take_due())
        traces = self._parts.traces
        if traces is not None:
            for traced in self._outbox.take_traced():
                encoded = [shortened(traced.encoded, max_bytes)]
                traces.sending(traced, partial(comms.send_feedback, encoded))

    def _update_status(self) -> None:
        self._status.clock_behind_s = self._server_clock.behind_s
        self._status.signing_keys_version = self._parts.trust.version
        self._status.enrolment_id = self._parts.trust.enrolment_id
        self._status.progress = self._executor.progress
        self._status.problems.report(Problem.STORE_ROW, self._parts.store.row_damage)
        cut_off = self._executor.cut_off
        self._status.problems.report(Problem.LEFTOVER, self._leftovers.problem)
        self._status.problems.report(Problem.HANDLER, _CUT_OFF.format(cut_off) if cut_off else None)

    def _correct_clock(self, acks: Sequence[SignedAck]) -> None:
        if self._server_clock.behind_s is None:
            return  # the usual case: acks can correct nothing, and each would cost two reads of the store
        for signed in acks:
            stored = self._parts.store.find(signed.ack.command_id)
            result = stored.result.feedback if stored and stored.result else None
            if signed.signed_at and result and result.digest == signed.ack.digest and result.finished_at:
                self._server_clock.observe_reply(result.finished_at, signed.signed_at)

    def _save_time_sample(self, *, busy: bool) -> None:
        sample = self._server_clock.sample_to_save(self._parts.store.time_sample, busy=busy)
        if sample is not None:
            self._parts.store.save_time_sample(sample)
