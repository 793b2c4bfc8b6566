"""The agent between the wire and the handlers, driven by calls: it owns no thread, no socket and no signal."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from broker.contract.codec import DecodeError, decode_acks, decode_blob_chunks, decode_controls
from broker.contract.dsse import SignatureError
from broker.contract.messages import Ack
from broker.contract.topics import Channel
from broker.mqtt.delivery import Delivery
from broker.system.log_throttle import LogThrottle
from consumer.comms.blob_reader import BlobReader
from consumer.comms.client import AgentCommsClient
from consumer.engine.command_manager import CommandManager, Departure
from consumer.engine.executor import Executor, Spawn
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.outbox import FeedbackOutbox
from consumer.engine.problems import Problem
from consumer.engine.readiness import Readiness
from consumer.engine.receiver import CommandReceiver, Receipt
from consumer.engine.status import StatusBuilder
from consumer.errors import StoreFull
from consumer.handler import Context, Handler, Replacement
from consumer.observer import LogObserver, Observer
from consumer.ports import BackgroundTask, Clock, CommandStore, Service
from consumer.settings import AgentConfig
from consumer.system.partial_files import PARTIAL_FILES, drop_stale_files
from consumer.trust.ports import KeyKeeper
from consumer.trust.trusted_clock import ServerClock
from consumer.trust.verification import ReceivedFrame, Trust, Verifier

__all__ = [
    "AgentCore",
    "AgentDependencies",
]


_T = TypeVar("_T")
_log = structlog.get_logger(__name__)
_IDLE_WAIT_S = 1.0
_HOUSEKEEPING_S = 3600.0
_FULL_RETRY_S = 2.0
_REFUSAL_SHOWN_S = 600.0  # an operator looks at the status only now and then, and acks are taken all the time


@dataclass(frozen=True)
class AgentDependencies:
    """What the core works with. `lane` runs a handler beside the core; `wake` is called from it when one has ended."""

    store: CommandStore
    comms: AgentCommsClient
    service: Service
    clock: Clock
    lane: Spawn
    wake: Callable[[], None]
    trust: Trust
    keeper: KeyKeeper
    departure: Departure
    readiness: Readiness
    chores: Sequence[BackgroundTask] = ()
    stopping: threading.Event = field(default_factory=threading.Event)
    observer: Observer = field(default_factory=LogObserver)


class AgentCore:
    """One incarnation of an agent. Call `recover` once, then `step` with what arrived, again after `wait_s` seconds.

    Each step is one commit: what has arrived, what has ended and what begins next; only then is anything
    acknowledged, sent or begun. `step` raises StoreError when the store fails: nothing is lost, but the process must
    begin anew.
    """

    def __init__(
        self,
        config: AgentConfig,
        around: AgentDependencies,
        status: StatusBuilder,
        handlers: Mapping[str, Handler[Any]],
        *,
        incarnation: str,
    ) -> None:
        self._store = around.store
        self._comms = around.comms
        self._chores = around.chores
        self._clock = around.clock
        self._status = status
        self._mail: list[Delivery] = []
        self._keeper = around.keeper
        self._trust = around.trust
        self._full_until = 0.0
        self._housekeeping_at = 0.0
        self._partial_files = Path(config.state) / PARTIAL_FILES
        self._seldom = LogThrottle(around.clock.monotonic)
        self._blobs = BlobReader(around.comms.request_blob, around.clock)
        self._readiness = around.readiness
        self._refused: str | None = None
        self._refusal_shown_until = 0.0
        self._server_clock = ServerClock(around.clock, around.store.heard_time)
        self._verifier = Verifier(
            config.agent, around.trust, self._server_clock, accept_unsigned=config.accept_unsigned
        )
        self._executor = Executor(
            handlers,
            Context(
                self._server_clock,
                around.service,
                Path(config.state),
                stopping=around.stopping,
                observer=around.observer,
                download=config.download,
                confinement=config.programs,
                blobs=self._blobs,
            ),
            around.lane,
            incarnation=incarnation,
            default_timeout_s=config.default_timeout_s,
            grace_s=config.kill_grace_s,
            on_finished=around.wake,
        )
        reports = FeedbackFactory(
            config.agent,
            incarnation,
            around.store.store_generation,
            {name: handler.parameters for name, handler in handlers.items()},
            accepts_unsigned=config.accept_unsigned or None,
        )
        self._outbox = FeedbackOutbox(around.store, around.clock)
        self._receiver = CommandReceiver(around.store, reports, self._server_clock, self._verifier, around.keeper)
        self._manager = CommandManager(
            around.store,
            self._executor,
            self._outbox,
            reports,
            self._server_clock,
            handlers,
            around.departure,
            why_no_longer_trusted=self._verifier.why_no_longer_trusted,
        )

    @property
    def replacement(self) -> Replacement | None:
        """What a command wants this process replaced by; no command begins any more."""
        return self._manager.replacement

    def recover(self) -> None:
        """Settle what an earlier process left in processing."""
        self._manager.recover()

    def connected(self) -> None:
        """Publish the status and send every result again: what an earlier connection took may be lost."""
        self._status.publish_again()
        self._outbox.send_all_again()
        self._blobs.connected()

    def wait_s(self) -> float:
        """Return how many seconds the next step can wait when nothing arrives before."""
        dues = (
            self._outbox.next_due(),
            self._executor.next_deadline(),
            self._status.next_due(),
            *(chore.next_due() for chore in self._chores),
        )
        now = self._clock.monotonic()
        return max(0.0, min([_IDLE_WAIT_S, *(due - now for due in dues if due is not None)]))

    def step(self, arrived: Sequence[Delivery]) -> None:
        """Take in what arrived and do what can be done now."""
        self._mail += self._hand_over_chunks(arrived)
        for chore in self._chores:
            chore.step()
        self._commit_and_act()
        if not self._readiness.has_stored:
            self._show_that_it_stores()
        status = self._status.take_due(self._executor.running)
        if status is not None:
            self._comms.publish_status(status)
        if self._clock.monotonic() >= self._housekeeping_at:
            self._housekeeping_at = self._clock.monotonic() + _HOUSEKEEPING_S
            with contextlib.suppress(StoreFull):  # in an hour there may be room
                self._store.drop_expired(self._clock.now())
            drop_stale_files(self._partial_files, self._clock.now())

    def say_goodbye(self) -> None:
        """Publish that the agent is offline."""
        self._comms.publish_status(self._status.current(self._executor.running, online=False))

    def _hand_over_chunks(self, arrived: Sequence[Delivery]) -> list[Delivery]:
        """Give chunks of blobs to their readers, and return the rest; chunks need no commit."""
        for chunk, _ in self._decoded(Channel.BLOB_CHUNK, decode_blob_chunks, arrived):
            self._blobs.receive(chunk)
        self._comms.acknowledge(self._on(Channel.BLOB_CHUNK, arrived))
        return [delivery for delivery in arrived if delivery.topic != self._comms.topic[Channel.BLOB_CHUNK]]

    def _show_that_it_stores(self) -> None:
        try:
            self._store.check()
            self._readiness.has_stored = True
        except StoreFull as error:
            self._status.problems.tell(Problem.STORE_FULL, str(error))

    def _commit_and_act(self) -> None:
        taken, left = self._openable_mail()
        try:
            with self._store.transaction():
                receipt = self._receiver.receive(self._on(Channel.COMMAND, taken))
                acks = self._decoded(Channel.ACK, decode_acks, taken)
                controls = self._decoded(Channel.CONTROL, decode_controls, taken)
                self._mend_clock(acks)
                decisions = self._manager.decide([ack for ack, _ in acks], [control for control, _ in controls])
                self._keep_heard_time(busy=bool(taken or self._store.pending_count()))
        except StoreFull as error:
            self._status.problems.tell(Problem.STORE_FULL, str(error))
            self._full_until = self._clock.monotonic() + _FULL_RETRY_S
            return
        self._mail = left
        if not left:
            self._status.problems.tell(Problem.STORE_FULL, None)
        self._outbox.tell(receipt.feedback)
        self._manager.carry_out(decisions)
        self._comms.acknowledge(taken)
        self._comms.send_feedback(self._outbox.take_due())
        self._tell_refusals(receipt, took_some=bool(acks or controls or receipt.taken))
        self._status.clock_behind_s = self._server_clock.behind_s
        self._status.signing_keys_version = self._keeper.version
        self._status.enrolment_id = self._trust.enrolment_id

    def _mend_clock(self, acks: Sequence[tuple[Ack, datetime | None]]) -> None:
        if self._server_clock.behind_s is None:
            return  # as nearly always: then no answer can mend anything, and each would cost two reads of the store
        for ack, signed_at in acks:
            stored = self._store.find(ack.command_id)
            result = stored.result if stored else None
            if signed_at and result and result.digest == ack.digest and result.finished_at:
                self._server_clock.answered(result.finished_at, signed_at)

    def _keep_heard_time(self, *, busy: bool) -> None:
        heard = self._server_clock.to_keep(self._store.heard_time, busy=busy)
        if heard is not None:
            self._store.save_time_sample(heard)

    def _tell_refusals(self, receipt: Receipt, *, took_some: bool) -> None:
        """Show why a message was refused for a while, and then until another one is taken."""
        refused, self._refused = receipt.refused[-1] if receipt.refused else self._refused, None
        now = self._clock.monotonic()
        if refused is not None:
            self._status.problems.tell(Problem.MESSAGE, refused)
            self._refusal_shown_until = now + _REFUSAL_SHOWN_S
        elif took_some and now >= self._refusal_shown_until:
            self._status.problems.tell(Problem.MESSAGE, None)

    def _openable_mail(self) -> tuple[list[Delivery], list[Delivery]]:
        """Part the mail into what can be taken now and the commands that must wait for room on the disk."""
        if self._clock.monotonic() >= self._full_until:
            return self._mail, []
        others = [delivery for delivery in self._mail if delivery.topic != self._comms.topic[Channel.COMMAND]]
        return others, self._on(Channel.COMMAND, self._mail)

    def _on(self, channel: Channel, deliveries: Sequence[Delivery]) -> list[Delivery]:
        topic = self._comms.topic[channel]
        return [delivery for delivery in deliveries if delivery.topic == topic]

    def _decoded(
        self, channel: Channel, decode: Callable[[bytes], list[_T]], deliveries: Sequence[Delivery]
    ) -> list[tuple[_T, datetime | None]]:
        """Return the messages on a channel, each with when the server has signed it."""
        messages: list[tuple[_T, datetime | None]] = []
        for delivery in self._on(channel, deliveries):
            with self._refusing(delivery):
                _refuse_retained(delivery)
                opened = self._opened(channel, delivery)
                messages += [(message, opened.signed_at) for message in decode(opened.trusted())]
        return messages

    def _opened(self, channel: Channel, delivery: Delivery) -> ReceivedFrame:
        """Open a delivery. A chunk of a blob needs no signature: a signed command names its hash."""
        if channel is Channel.BLOB_CHUNK:
            return ReceivedFrame(delivery.payload)
        return self._verifier.open(channel, delivery.payload)

    @contextlib.contextmanager
    def _refusing(self, delivery: Delivery) -> Iterator[None]:
        try:
            yield
        except (DecodeError, SignatureError) as error:
            held_back = self._seldom.due("message_refused", delivery.topic)
            if held_back is not None:
                _log.warning("message_refused", topic=delivery.topic, reason=str(error), suppressed=held_back)
            self._refused = str(error)


def _refuse_retained(delivery: Delivery) -> None:
    if delivery.retained:
        raise DecodeError(f"A retained message on {delivery.topic} was refused; publish without retain.")
