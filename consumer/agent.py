"""The composition root of the agent: builds the parts, owns the threads, the signals and the shutdown."""

import contextlib
import os
import queue
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Listing
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import structlog

from broker.contract.codec import DecodeError, decode_acks, decode_controls
from broker.contract.messages import Ack, Control, Status
from broker.contract.topics import Channel, Topics
from broker.mqtt import Delivery
from consumer.command_manager import CommandManager
from consumer.command_store import DiskCommandStore
from consumer.comms import AgentCommsClient
from consumer.config import AgentConfig
from consumer.errors import StoreFull
from consumer.executor import Executor
from consumer.feedback import FeedbackOutbox, growing_waits
from consumer.handlers import HANDLERS, handler_table
from consumer.handlers.base import Context, Handler
from consumer.ports import Clock, Service
from consumer.receiver import CommandReceiver
from consumer.reports import Reports
from consumer.service import ChildService, NoService, SystemdService

__all__ = ["RESTARTED_BY", "Agent", "SystemClock", "build_service", "replace_process"]

_log = structlog.get_logger(__name__)
RESTARTED_BY = "ACM_RESTARTED_BY"
_IDLE_WAIT_S = 1.0
_HOUSEKEEPING_S = 3600.0
_STATUS_EVERY_S = 0.2
_FULL_RETRY_S = 2.0


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return monotonic()


def build_service(config: AgentConfig, clock: Clock) -> Service:
    """Return the service that the configuration names."""
    wanted = config.service
    if wanted.kind == "child":
        return ChildService(wanted.argv, Path(config.state), clock, growing_waits, grace_s=wanted.stop_grace_s)
    if wanted.kind == "systemd":
        return SystemdService(wanted.unit or "", clock)
    return NoService()


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "unknown"


class _Threads:
    """Runs each piece of work on an idle thread, or on a new one while another piece hangs."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def __call__(self, work: Callable[[], None]) -> None:
        self._work.put(work)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._run, name="acm-executor", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._work.get()()
            self._idle.release()


class Agent:
    """One agent of one state directory. `run` returns when `stop` was called or a new process is wanted.

    `handlers` come in addition to the built-in ones. Raises StoreError or StateDirectoryInUse when the state directory
    cannot be used, MqttError when the broker's URL is wrong.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        handlers: Iterable[Handler] = (),
        service: Service | None = None,
        restarted_by: str | None = None,
    ) -> None:
        self.config = config
        self.incarnation = uuid.uuid4().hex
        self._clock = SystemClock()
        self._handlers = dict(handler_table([*HANDLERS, *handlers]))
        self._store = DiskCommandStore.open(Path(config.state), now=self._clock.now)
        self._reports = Reports(config.agent, self.incarnation, self._store.store_generation)
        self._service = service or build_service(config, self._clock)
        self._stopping = threading.Event()
        self._last_error = self._store.damage
        self._published: Status | None = None
        self._status_due = 0.0
        self._connected = threading.Event()
        self._mail: list[Delivery] = []
        self._full_until = 0.0
        self._version = version("agent-command-manager")
        self._boot_id = _boot_id()
        topics = Topics(config.topic_prefix)
        self._comms = AgentCommsClient(
            config.broker, config.agent, topics, self._status(None, online=False), self._connected.set
        )
        self._executor = self._build_executor(restarted_by)
        self._outbox = FeedbackOutbox(self._store, self._clock)
        self._receiver = CommandReceiver(
            self._store, self._reports, self._clock, accept_unsigned=config.accept_unsigned
        )
        self._manager = CommandManager(
            self._store, self._executor, self._outbox, self._reports, self._clock, self._handlers
        )

    def _build_executor(self, restarted_by: str | None) -> Executor:
        shown: Mapping[str, Any] = msgspec.to_builtins(self.config)
        context = Context(self._clock, self._service, shown, self.incarnation, restarted_by)
        return Executor(
            self._handlers,
            context,
            _Threads(),
            default_timeout_s=self.config.default_timeout_s,
            grace_s=self.config.kill_grace_s,
            on_finished=self._comms.get_connection().wake,
        )

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or another thread."""
        self._stopping.set()
        self._comms.get_connection().wake()

    def run(self) -> str | None:
        """Work until stopped. Returns the id of the command that wants this process replaced, if one does."""
        connection = self._comms.get_connection()
        try:
            self._manager.recover()
            connection.start()
            _log.info("agent_started", agent=self.config.agent, incarnation=self.incarnation)
            housekeeping_at = 0.0
            while not self._stopping.is_set() and self._manager.restart_for is None:
                self._mail += self._comms.receive_commands(self._wait_s())
                self._turn()
                if self._clock.monotonic() >= housekeeping_at:
                    housekeeping_at = self._clock.monotonic() + _HOUSEKEEPING_S
                    self._store.drop_expired(self._clock.now())
            return self._manager.restart_for
        finally:
            self._shut_down()

    def _shut_down(self) -> None:
        offline = replace(self._status(self._executor.running), online=False)
        self._comms.publish_status(offline)
        self._comms.get_connection().stop()
        if isinstance(self._service, ChildService):
            self._service.shut_down()
        self._store.close()
        _log.info("agent_stopped", agent=self.config.agent)

    def _wait_s(self) -> float:
        dues = [self._outbox.next_due(), self._executor.next_deadline()]
        if self._published is None or self._published != self._status(self._executor.running):
            dues.append(self._status_due)
        now = self._clock.monotonic()
        return max(0.0, min([_IDLE_WAIT_S, *(due - now for due in dues if due is not None)]))

    def _turn(self) -> None:
        if self._connected.is_set():
            self._connected.clear()
            self._published = None
            self._outbox.send_all_again()
        if isinstance(self._service, ChildService):
            self._service.supervise()
        self._commit_and_act()
        self._report_status()

    def _commit_and_act(self) -> None:
        """Decide on all that has come and all that has ended in one commit, and act only on what is committed."""
        taken, left = self._openable_mail()
        try:
            with self._store.transaction():
                receipt = self._receiver.receive(self._on(Channel.COMMAND, taken))
                decisions = self._manager.decide(self._acks(taken), self._controls(taken))
        except StoreFull as error:
            self._last_error = str(error)
            self._full_until = self._clock.monotonic() + _FULL_RETRY_S
            return
        self._mail = left
        self._outbox.tell(receipt.feedback)
        self._manager.carry_out(decisions)
        self._comms.get_connection().acknowledge(taken)
        self._comms.send_feedback(self._outbox.take_due())
        if receipt.refused:
            self._last_error = receipt.refused[-1]

    def _openable_mail(self) -> tuple[list[Delivery], list[Delivery]]:
        """Part the mail into what can be taken now and the commands that must wait for room on the disk."""
        if self._clock.monotonic() >= self._full_until:
            return self._mail, []
        others = [delivery for delivery in self._mail if delivery.topic != self._comms.topic[Channel.COMMAND]]
        return others, self._on(Channel.COMMAND, self._mail)

    def _on(self, channel: Channel, deliveries: Listing[Delivery]) -> list[Delivery]:
        topic = self._comms.topic[channel]
        return [delivery for delivery in deliveries if delivery.topic == topic]

    def _acks(self, deliveries: Listing[Delivery]) -> list[Ack]:
        acks: list[Ack] = []
        for delivery in self._on(Channel.ACK, deliveries):
            with self._refusing(delivery):
                acks += decode_acks(delivery.payload)
        return acks

    def _controls(self, deliveries: Listing[Delivery]) -> list[Control]:
        controls: list[Control] = []
        for delivery in self._on(Channel.CONTROL, deliveries):
            with self._refusing(delivery):
                controls += decode_controls(delivery.payload)
        return controls

    @contextlib.contextmanager
    def _refusing(self, delivery: Delivery) -> Any:
        try:
            if delivery.retained:
                raise DecodeError(f"A retained message on {delivery.topic} was refused; publish without retain.")
            yield
        except DecodeError as error:
            _log.warning("message_refused", topic=delivery.topic, reason=str(error))
            self._last_error = str(error)

    def _status(self, running: str | None, *, online: bool = True) -> Status:
        last = self._store.last_sequence
        service = self._service.state() if isinstance(self._service, ChildService) else None
        return Status(
            agent=self.config.agent,
            online=online,
            version=self._version,
            incarnation=self.incarnation,
            boot_id=self._boot_id,
            store_generation=self._store.store_generation,
            epoch=last.epoch if last else None,
            last_sequence=last.number if last else 0,
            queue_depth=self._store.pending_count(),
            results_waiting=self._store.done_count(),
            running_command=running,
            supported_types=tuple(sorted(self._handlers)),
            accepts_unsigned=self.config.accept_unsigned,
            service={"kind": service.kind, "running": service.running} if service else None,
            last_error=self._last_error,
        )

    def _report_status(self) -> None:
        status = self._status(self._executor.running)
        now = self._clock.monotonic()
        if status == self._published or (self._published and now < self._status_due):
            return
        self._published = status
        self._status_due = now + _STATUS_EVERY_S
        self._comms.publish_status(replace(status, updated_at=self._clock.now()))


def replace_process(command_id: str) -> None:
    """Start this program anew in the same process id, telling it for which command (execve(2))."""
    environment = {**os.environ, RESTARTED_BY: command_id}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - no shell is the point
