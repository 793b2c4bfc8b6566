"""The composition root of the agent: builds the parts, owns the threads, the signals and the shutdown."""

import contextlib
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import structlog

from broker.contract.secret_shapes import mask_shapes
from broker.contract.states import Problem
from broker.contract.topics import Channel, Topics
from broker.metrics.common import build_info, of_connection
from broker.metrics.listener import serving_metrics
from broker.metrics.values import Source
from broker.mqtt.connection import MqttConnection
from broker.system.command_log import CommandLog
from broker.system.retry import growing_waits
from broker.system.service_manager import ServiceManager
from broker.tracing.opening import opened_tracer, tracing
from broker.tracing.port import Tracer
from consumer.active_response.protected_targets import ProtectedTargets
from consumer.active_response.responses import DIRECTORY, ActiveResponses
from consumer.comms.client import AgentCommsClient
from consumer.engine.command_events import AgentCommandLog
from consumer.engine.core import AgentCore, AgentDependencies, HandlerRuntime
from consumer.engine.counts import AgentCounts, of_certificate, of_store
from consumer.engine.process_report import ProcessReport
from consumer.engine.readiness import Readiness
from consumer.engine.round_trip import RoundTrip
from consumer.engine.status import StatusBuilder, boot_id
from consumer.engine.traces import AgentTraces
from consumer.engine.watch import AgentWatches
from consumer.enrolment.relocation import Relocation
from consumer.enrolment.renewal import Renewal
from consumer.enrolment.store import Enrolment, EnrolmentDirectory
from consumer.enrolment.trusted_keys import EnrolmentTrust
from consumer.errors import ConfigurationError, StoreLocked
from consumer.handler import Handler, Replacement, ReplacementTest
from consumer.handlers.built_in import BUILT_IN_TYPES, added_handlers, built_in_handlers
from consumer.handlers.restart_agent import AgentProcess
from consumer.observer import LogObserver, Observer
from consumer.plugins import NO_PLUG_INS, PlugIns
from consumer.ports import BackgroundTask, Service
from consumer.services.managed import ManagedService, managed_service
from consumer.settings import AgentConfig
from consumer.store.inode_watch import InodeWatch
from consumer.store.opening import open_store
from consumer.system.clock import Boot, SystemClock
from consumer.system.leftovers import Leftovers
from consumer.trust.ports import Trust
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import NoTrust
from consumer.upgrade.after_proof import AfterProof

__all__ = [
    "Agent",
    "check_start",
]


_log = structlog.get_logger(__name__)


# design.md: "An agent that would reject every command refuses to start."
def _check_trust(config: AgentConfig, trust: Trust) -> None:
    """Raise ConfigurationError if the agent would reject every command."""
    if not trust.keys and not config.accept_unsigned:
        raise ConfigurationError(
            f"The agent {config.agent} is not enrolled with a server that signs its commands, so it would reject all "
            "of them: enroll it with `acm-agent enroll`, or run it with --accept-unsigned (accept_unsigned).",
            code="no_trusted_keys",
        )


def check_start(config: AgentConfig) -> None:
    """Raise what `Agent` raises for this configuration on this machine, except for its command store.

    So it may be called while another process runs the agent: nothing is opened, locked or changed.
    """
    enrolments = EnrolmentDirectory(Path(config.state))
    enrolment = enrolments.current()
    _check_trust(config, NoTrust() if enrolment is None else EnrolmentTrust(enrolments, enrolment))
    MqttConnection(config.broker, config.agent, tls=None if enrolment is None else enrolment.tls)


class _ThreadPool:
    """Runs each piece of work on an idle thread, or on a new one while another piece hangs."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def __call__(self, work: Callable[[], None]) -> None:
        """Run it; raises RuntimeError if the system has no thread for it now."""
        if self._idle.acquire(blocking=False):
            self._work.put(work)
        else:
            threading.Thread(target=self._run, args=(work,), name="acm-executor", daemon=True).start()

    def _run(self, work: Callable[[], None]) -> None:
        while True:
            work()
            self._idle.release()
            work = self._work.get()


class Agent:
    """An agent with its state directory. `run` returns when `stop` was called or the process must be replaced.

    `handlers` and those of `plug_ins` (see `load_plug_ins`) come in addition to the built-in ones, or replace them.
    `origins` names the source of each value of `config`, as `consumer.config.origins` returns it. `restarted_by` is the
    id of the command that replaced the previous process (`RESTARTED_BY` in its environment). `service_manager` is
    notified of each turn. `test_replacement` is called before the process is replaced, which is not done if it refuses.
    `tracer` takes the place of the configured one, and is closed by `run`.
    Raises StoreError or StateDirectoryInUse if the state directory cannot be used, MqttError if the broker's URL is
    invalid, HandlerTableError if two handlers claim the same type, ConfigurationError if the agent would reject every
    command.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        handlers: Iterable[Handler[Any]] = (),
        plug_ins: PlugIns = NO_PLUG_INS,
        service: Service | None = None,
        observer: Observer | None = None,
        origins: Mapping[str, str] | None = None,
        restarted_by: str | None = None,
        service_manager: ServiceManager | None = None,
        test_replacement: ReplacementTest | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.config = config
        self.incarnation = uuid.uuid4().hex
        self._clock, self._spawn, self._observer = SystemClock(), _ThreadPool(), observer or LogObserver()
        self._stopping, self._connected, self._reloading = threading.Event(), threading.Event(), threading.Event()
        self._service_manager, self._restarted_by = service_manager or ServiceManager(monotonic, {}), restarted_by
        self._test_replacement = test_replacement
        added = added_handlers([*plug_ins.handlers, *handlers])
        self._leftovers = Leftovers()
        self._enrolments = EnrolmentDirectory(Path(config.state), self._leftovers)
        self._enrolment = self._enrolments.current()
        self._trust = NoTrust() if self._enrolment is None else EnrolmentTrust(self._enrolments, self._enrolment)
        _check_trust(config, self._trust)
        self._store = open_store(
            Path(config.state),
            now=self._clock.now,
            agent=config.agent,
            stopping=self._stopping.is_set,
            enrolment_id=None if self._enrolment is None else self._enrolment.grant.enrolment_id,
        )
        self._trusted_clock = TrustedClock(self._clock, self._store.time_sample)
        self._after_proof = AfterProof(config.upgrade, self._clock)
        # The release before this one must be able to read what this process stores.
        self._store.stores_together = not self._after_proof.may_go_back
        self._version = self._after_proof.running_version or version("agent-command-manager")
        self._service = ManagedService(service) if service else managed_service(config, self._clock)
        self._responses = self._build_responses()
        self._status = self._build_status(tuple(sorted(BUILT_IN_TYPES | added.keys())), plug_ins.problem)
        topics = Topics(config.topic_prefix)
        self._connection = self._build_connection(topics)
        self._comms = AgentCommsClient(self._connection, config.agent, topics, self._clock.monotonic)
        self._process_report = ProcessReport(
            Path(config.state), self._status, self._connection, self._clock, mask_shapes(config.broker)
        )
        self._relocation = self._build_relocation()
        self._status.problems.report(Problem.ENROLMENT, self._enrolments.damage)
        self._counts = AgentCounts() if config.metrics_listen is not None else None
        self._tracer = tracer or opened_tracer(config.traces, "acm-agent", config.agent)
        self._core = self._build_core(added, origins or {}, restarted_by)

    def _build_responses(self) -> ActiveResponses:
        return ActiveResponses(
            self.config.active_response,
            Path(self.config.state) / DIRECTORY,
            self._clock,
            self._observer,
            boot=Boot(boot_id()),
            spawn=self._spawn,
            wake=lambda: self._connection.wake(),
            protected=ProtectedTargets.of(self.config, self._enrolment.grant.server if self._enrolment else None),
            confinement=self.config.programs.as_agent(),
            leftovers=self._leftovers,
        )

    def _build_status(self, types: tuple[str, ...], plug_in_problem: str | None) -> StatusBuilder:
        status = StatusBuilder(
            self.config,
            self._store,
            self._clock,
            incarnation=self.incarnation,
            supported_types=types,
            service_state=self._service.cheap_state,
            service_problem=self._service.problem,
            reversals=self._responses,
            running_version=self._version,
        )
        status.problems.report(Problem.UPGRADE, self._after_proof.failure())
        damage = self._store.damage
        status.problems.report(Problem.STORE_DAMAGED, damage.message if damage else None)
        status.problems.report(Problem.PLUG_IN, plug_in_problem)
        if plug_in_problem:
            _log.error("plug_in_refused", reason=plug_in_problem)
        return status

    def _build_connection(self, topics: Topics) -> MqttConnection:
        config, enrolment = self.config, self._enrolment
        return MqttConnection(
            config.broker,
            config.agent,
            will=(topics.of(config.agent, Channel.STATUS), self._status.last_wills()),
            subscriptions=AgentCommsClient.subscriptions(config.agent, topics),
            on_connect=self._connected.set,
            tls=enrolment.tls if enrolment is not None else None,
            drain_reads=True,
        )

    def _build_relocation(self) -> Relocation:
        return Relocation(
            self._enrolments,
            self._store,
            self._connection,
            self._clock,
            self._observer,
            incarnation=self.incarnation,
            address=(self.config.broker, self.config.topic_prefix),
            accept_unsigned=self.config.accept_unsigned,
        )

    def _build_core(
        self, added: Mapping[str, Handler[Any]], origins: Mapping[str, str], restarted_by: str | None
    ) -> AgentCore:
        round_trip = RoundTrip(
            self.config.agent,
            self._store.store_generation,
            self.incarnation,
            self._clock,
            lambda: self._connection.quiet_s,
        )
        readiness = Readiness(self._connection.readiness_problem, round_trip)
        commands = AgentCommandLog(self.config.agent, CommandLog(partial(datetime.now, UTC)), self._trusted_clock)
        traces = self._build_traces()
        parts = AgentDependencies(
            self._store,
            self._comms,
            self._clock,
            self._trusted_clock,
            self._trust,
            self._relocation,
            readiness,
            self._background_tasks(),
            AgentWatches(commands, *(it for it in (self._counts, traces) if it is not None)),
            traces,
        )
        runtime = HandlerRuntime(
            self._service.service,
            self._spawn,
            self._connection.wake,
            side_by_side=True,
            renews_process=self.config.service.kind != "child",  # which would be restarted with the agent
            test_replacement=self._test_replacement,
            stopping=self._stopping,
            observer=self._observer,
            leftovers=self._leftovers,
        )
        built_in = built_in_handlers(
            self.config,
            AgentProcess(self.incarnation, restarted_by),
            origins=origins,
            responses=self._responses,
            relocation=self._relocation,
            trusted_keys=self._trust,
            readiness_problem=readiness.problem,
            test_replacement=self._test_replacement,
        )
        handlers = {**built_in, **added}
        return AgentCore(self.config, parts, runtime, self._status, handlers, incarnation=self.incarnation)

    def _build_traces(self) -> AgentTraces | None:
        if self._tracer is None:
            return None
        return AgentTraces(self._tracer, self.config.agent, Topics(self.config.topic_prefix), self._trusted_clock)

    def _background_tasks(self) -> list[BackgroundTask]:
        tasks: list[BackgroundTask] = [self._responses.reversals, *self._service.tasks, self._after_proof]
        tasks.append(InodeWatch(Path(self.config.state), self._clock, partial(self._report, Problem.NO_INODES)))
        if self._enrolment is not None and isinstance(self._trust, EnrolmentTrust):
            tasks.append(self._build_renewal(self._enrolment, self._trust))
        return [*tasks, self._relocation, self._process_report]

    def _report(self, problem: Problem, sentence: str | None) -> None:
        self._status.problems.report(problem, sentence)

    def _build_renewal(self, enrolment: Enrolment, trust: EnrolmentTrust) -> Renewal:
        def use(renewed: Enrolment) -> None:
            self._enrolment = renewed
            self._connection.tls = renewed.tls
            trust.renewed(renewed.grant)

        def paused() -> bool:
            return self._relocation.in_progress

        report = partial(self._report, Problem.RENEWAL)
        return Renewal(
            self._enrolments, enrolment, self._trusted_clock, use=use, report=report, paused=paused, waits=growing_waits
        )

    @property
    def stop_requested(self) -> bool:
        """Whether `stop` was called, even if a command had already asked for a new process."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Make `run` return soon. May be called from any thread or a signal handler."""
        self._stopping.set()
        self._connection.wake()

    def reload(self) -> None:
        """Read the certificate again and connect again, soon. May be called from any thread or a signal handler."""
        self._reloading.set()
        self._connection.wake()

    def run(self) -> Replacement | None:
        """Work until stopped. Returns the replacement that a command asked for, or None after `stop`.

        Raises StoreError if the command store fails.
        """
        with contextlib.ExitStack() as last_first:  # each step is taken, whatever fails in another one
            self._prepare_end(last_first)
            try:
                self._work(last_first)
            except StoreLocked:
                if not self.stop_requested:
                    raise
                return None
            self._after_proof.ended_as_intended()
            return self._replacement

    def _work(self, last_first: contextlib.ExitStack) -> None:
        core = self._core
        last_first.enter_context(serving_metrics("metrics_listen", self.config.metrics_listen, self._metrics()))
        core.recover(self._restarted_by)
        _log.info("agent_started", **self._description())
        self._connection.start()
        while not self._stopping.is_set() and self._replacement is None:
            self._service_manager.turn(ready=self._connection.connected, status=self._connection.summary)
            if self._reloading.is_set():
                self._reloading.clear()
                self._connection.reconnect()
            self._connection.abandon_if_deaf()
            arrived = self._comms.receive(core.wait_s())
            self._status.problems.report(Problem.CONNECTION, self._connection.problem)
            if self._connected.is_set():
                self._connected.clear()
                core.connected()
            core.step(arrived)

    def _metrics(self) -> list[Source]:
        if self._counts is None:
            return []
        end = of_certificate(lambda: self._enrolment.grant.not_after if self._enrolment else None)
        own = (build_info(self._version), of_connection(self._connection), end)
        return [*own, of_store(self._store, self._status), self._counts.families]

    @property
    def _replacement(self) -> Replacement | None:
        moved_by = self._relocation.moved_by
        return self._core.replacement or (Replacement(moved_by) if moved_by is not None else None)

    def _description(self) -> dict[str, str]:
        return {
            "agent": self.config.agent,
            "incarnation": self.incarnation,
            "version": self._version,
            "broker": mask_shapes(self.config.broker),
            "state": self.config.state,
        }

    def _prepare_end(self, last_first: contextlib.ExitStack) -> None:
        last_first.callback(self._log_end)
        last_first.enter_context(tracing(self._tracer))
        last_first.callback(self._store.close)
        last_first.push(self._process_report)  # while the lock of the store keeps the next process from writing its own
        last_first.callback(self._service.shut_down)
        last_first.callback(self._connection.stop)
        last_first.callback(self._core.publish_offline)
        last_first.callback(self._relocation.close)
        last_first.callback(self._tell_end)

    def _log_end(self) -> None:
        _log.info("agent_stopped", agent=self.config.agent)  # at the current level: a reload may have changed it

    def _tell_end(self) -> None:
        if self._replacement is None:
            self._service_manager.stopping()
