"""What agents send: decoded, recorded in the ledger, and acknowledged after the commit."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby

import structlog

from broker.contract.codec import DecodeError, decode_blob_requests, decode_feedbacks, decode_status, to_json
from broker.contract.limits import MAX_NUMBER
from broker.contract.messages import Ack, Feedback, Status
from broker.contract.topics import Channel
from broker.errors import BrokerError
from broker.ledger.failures import RefusedByDatabase
from broker.ledger.ledger import Ledger, RecordedStatuses
from broker.ledger.refused_messages import UnstoredMessage
from broker.mqtt.inbound import Inbound
from broker.server.blob_requests import BlobRequests
from broker.system.log_throttle import LogThrottle

__all__ = [
    "Receiver",
]


_log = structlog.get_logger("acm.server")
_LAST_EPOCH = MAX_NUMBER - (1 << 40)  # epochs only grow, and agents accept none above MAX_NUMBER


class Receiver:
    """Processes messages of agents. `acknowledge` publishes acks to an agent, `on_status` follows a recorded status.

    `ask` requests a report from an agent, by the id of the request; it returns False if nothing may be sent to it.
    """

    def __init__(
        self,
        ledger: Ledger,
        acknowledge: Callable[[str, Sequence[Ack]], None],
        ask: Callable[[str, str], bool],
        blob_requests: BlobRequests,
        throttle: LogThrottle,
        on_status: Callable[[Status], None],
    ) -> None:
        self._ledger = ledger
        self._acknowledge = acknowledge
        self._ask = ask
        self._blob_requests = blob_requests
        self._throttle = throttle
        self._on_status = on_status
        self._receivers: dict[Channel, Callable[[Sequence[Inbound]], None]] = {
            Channel.FEEDBACK: self._receive_feedback,
            Channel.STATUS: self._receive_statuses,
            Channel.BLOB_REQUEST: self._receive_blob_requests,
        }

    def receive(self, messages: Iterable[Inbound]) -> None:
        """Process messages; raises LedgerError, and none of them may be acknowledged then.

        Each agent's messages are processed in order, in at most three parts: until its status, that, and the rest. So
        an agent causes few transactions, however many frames it sends, and all statuses are in one.
        """
        before, statuses, after = _parts(messages)
        for group in (*_by_agent_and_channel(before), statuses, *_by_agent_and_channel(after)):
            if group:
                self._receive_group(group)

    def _receive_group(self, messages: Sequence[Inbound]) -> None:
        """Process messages on one channel. One that would always fail is dropped, so that it stops no other."""
        first = messages[0]
        receiver = self._receivers.get(first.channel)
        if receiver is None:
            self._warn("unknown_topic", first.agent, topic=first.delivery.topic[:200])
            return
        try:
            receiver(messages)
        except Exception as error:
            if _may_succeed_later(error):
                raise
            if len(messages) > 1:
                for message in messages:
                    self._receive_group([message])
            else:
                self._drop(_refused(first.agent, first.channel, None, first.payload, error), error)

    def _receive_statuses(self, messages: Sequence[Inbound]) -> None:
        statuses = [status for message in messages if (status := self._status_in(message)) is not None]
        repeated = {message.agent for message in messages if message.retained or message.delivery.duplicate}
        if not statuses:
            return
        recorded = self._ledger.record_status(*statuses, repeated=repeated)
        self._follow(recorded)
        silenced = {agent for agent, request in recorded.requests if not self._ask(agent, request)} - repeated
        if silenced:  # they cannot be asked, so what they say now must do
            believed = [status for status in statuses if status.agent in silenced]
            self._follow(self._ledger.record_status(*believed, believed=True))

    def _follow(self, recorded: RecordedStatuses) -> None:
        for agent in recorded.conflicts:
            self._warn(
                "agent_name_used_twice", agent, reason=f"Another client connected as {agent}; give each its own name."
            )
        for status in recorded.new:
            self._on_status(status)

    def _status_in(self, message: Inbound) -> Status | None:
        agent = message.agent
        try:
            status = decode_status(message.payload)
        except DecodeError as error:
            self._warn("status_refused", agent, reason=str(error))
            return None
        if status.agent != agent:
            self._warn("status_of_another_agent", agent, claimed=status.agent)
            return None
        if max(status.epoch or 0, status.closed_epoch or 0) > _LAST_EPOCH:
            self._warn("status_refused", agent, reason="Its epoch is too close to the largest number.")
            return None
        return status

    def _receive_feedback(self, messages: Sequence[Inbound]) -> None:
        """Record feedback of one agent."""
        agent = messages[0].agent
        feedbacks: list[Feedback] = []
        for message in messages:
            try:
                feedbacks += decode_feedbacks(message.payload)
            except DecodeError as error:
                self._warn("feedback_refused", agent, reason=str(error))
        if feedbacks:
            self._record(agent, feedbacks)

    def _record(self, agent: str, feedbacks: Sequence[Feedback]) -> None:
        """Record feedback, and acknowledge its results; what would always fail is dropped alone."""
        try:
            recorded = self._ledger.record_feedback(agent, feedbacks)
        except Exception as error:
            if _may_succeed_later(error):
                raise
            half = len(feedbacks) // 2
            if half:
                self._record(agent, feedbacks[:half])
                self._record(agent, feedbacks[half:])
            else:
                payload = json.dumps(to_json(feedbacks[0])).encode()
                self._drop(_refused(agent, Channel.FEEDBACK, feedbacks[0].command_id, payload, error), error)
            return
        for refused in recorded.refused:
            facts = {"agent": agent, "command_id": refused.command_id, "code": refused.code}
            self._throttle.warn(_log, "message_refused_by_agent", agent, str(refused.code), **facts)
        if recorded.acks:
            self._acknowledge(agent, recorded.acks)

    def _receive_blob_requests(self, messages: Sequence[Inbound]) -> None:
        for message in messages:
            try:
                if message.retained:
                    raise DecodeError("It was retained; publish without retain.")
                for request in decode_blob_requests(message.payload):
                    self._blob_requests.put(message.agent, request)
            except DecodeError as error:
                self._warn("blob_request_refused", message.agent, reason=str(error))

    def _drop(self, message: UnstoredMessage, error: Exception) -> None:
        """Report a message that would always fail, and keep it for operators; nothing else is done with it."""
        if self._throttle.allow("message_failed", message.agent, message.channel, type(error).__name__) is not None:
            facts = {"agent": message.agent, "channel": message.channel, "command_id": message.command_id}
            _log.exception("message_failed", **facts, dropped=True)
        with suppress(RefusedByDatabase):  # it is in the log
            self._ledger.keep_refused(message)

    def _warn(self, event: str, agent: str, **facts: str) -> None:
        self._throttle.warn(_log, event, agent, agent=agent, **facts)


def _refused(agent: str, channel: Channel, command_id: str | None, payload: bytes, error: Exception) -> UnstoredMessage:
    content = payload.decode("ascii", "backslashreplace")
    return UnstoredMessage(agent, channel, command_id, str(error) or type(error).__name__, content, None)


def _may_succeed_later(error: Exception) -> bool:
    """Whether the ledger, or the keys, failed for another reason than the message."""
    return isinstance(error, BrokerError) and not isinstance(error, RefusedByDatabase)


def _parts(messages: Iterable[Inbound]) -> tuple[list[Inbound], list[Inbound], list[Inbound]]:
    """Return the messages that came before their agent's status, the statuses, and the others."""
    before: list[Inbound] = []
    statuses: list[Inbound] = []
    after: list[Inbound] = []
    reported: set[str] = set()
    for message in messages:
        if message.channel is Channel.STATUS:
            statuses.append(message)
            reported.add(message.agent)
        else:
            (after if message.agent in reported else before).append(message)
    return before, statuses, after


def _by_agent_and_channel(messages: list[Inbound]) -> Iterable[list[Inbound]]:
    ordered = sorted(messages, key=_agent_and_channel)
    return (list(group) for _, group in groupby(ordered, key=_agent_and_channel))


def _agent_and_channel(message: Inbound) -> tuple[str, Channel]:
    return message.agent, message.channel
