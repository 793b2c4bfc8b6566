"""What agents send: decoded, recorded in the ledger, and acknowledged after the commit."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import structlog

from broker.contract.codec import DecodeError, decode_blob_requests, decode_feedbacks, decode_status, to_json
from broker.contract.limits import MAX_NUMBER
from broker.contract.messages import Ack, Feedback, Status
from broker.contract.topics import Channel
from broker.errors import BrokerError
from broker.ledger.failures import RefusedByDatabase
from broker.ledger.feedback import Recorded
from broker.ledger.ledger import Ledger
from broker.ledger.refused_messages import UnstoredMessage
from broker.ledger.status import RecordedStatuses
from broker.ledger.turns import Said
from broker.mqtt.inbound import Inbound
from broker.server.blob_requests import BlobRequests
from broker.server.watch import ServerWatch
from broker.system.log_throttle import LogThrottle

__all__ = [
    "Receiver",
]


_log = structlog.get_logger("acm.server")
_LAST_EPOCH = MAX_NUMBER - (1 << 40)  # epochs only grow, and agents accept none above MAX_NUMBER


class Receiver:
    """Processes messages of agents. `acknowledge` publishes acks by agent, `on_status` follows a recorded status.

    `ask` requests reports from agents, by the ids of the requests; it returns the agents that nothing may be sent to.
    """

    def __init__(
        self,
        ledger: Ledger,
        acknowledge: Callable[[Mapping[str, Sequence[Ack]]], None],
        ask: Callable[[Mapping[str, str]], Collection[str]],
        blob_requests: BlobRequests,
        throttle: LogThrottle,
        on_status: Callable[[Status], None],
        watch: ServerWatch,
    ) -> None:
        self._ledger = ledger
        self._acknowledge = acknowledge
        self._ask = ask
        self._blob_requests = blob_requests
        self._throttle = throttle
        self._on_status = on_status
        self._watch = watch
        self._decoders: dict[Channel, Callable[[Inbound], Sequence[Said]]] = {
            Channel.FEEDBACK: self._feedbacks_in,
            Channel.STATUS: self._statuses_in,
            Channel.BLOB_REQUEST: self._receive_blob_requests,
        }

    def receive(self, messages: Iterable[Inbound]) -> None:
        """Process messages in one transaction; raises LedgerError, and none of them may be acknowledged then."""
        said: dict[str, list[Said]] = {}
        repeated: set[str] = set()
        for message in messages:
            its = self._said_in(message)
            said.setdefault(message.agent, []).extend(its)
            if message.delivery.trace is not None:
                self._watch.arrived(message.agent, its, message.delivery.trace)
            if message.channel is Channel.STATUS and (message.retained or message.delivery.duplicate):
                repeated.add(message.agent)
        self._record({agent: its for agent, its in said.items() if its}, repeated)

    def _said_in(self, message: Inbound) -> Sequence[Said]:
        """Return what a message says to the ledger. One that cannot be decoded at all is dropped."""
        decode = self._decoders.get(message.channel)
        if decode is None:
            self._refuse("unknown_topic", message.agent, topic=message.delivery.topic[:200])
            return ()
        try:
            return decode(message)
        except Exception as error:
            if _may_succeed_later(error):
                raise
            content = message.payload.decode("ascii", "backslashreplace")
            self._drop(message.agent, message.channel, None, content, error)
            return ()

    def _record(self, said: Mapping[str, Sequence[Said]], repeated: Collection[str]) -> None:
        """Record what agents said. What would always fail is found by halves and dropped, so that it stops no other."""
        if not said:
            return
        halves = _halves(said)
        try:
            self._record_together(said, repeated)
        except Exception as error:
            if _may_succeed_later(error):
                raise
            if not halves:
                ((agent, (it,)),) = said.items()
                self._drop_said(agent, it, error)
        else:
            return
        for half in halves:  # outside of the handler: an error would else have those of all larger parts as its context
            self._record(half, repeated)

    def _record_together(self, said: Mapping[str, Sequence[Said]], repeated: Collection[str]) -> None:
        """Record what agents said in one commit, and answer it."""
        self._watch.recording()
        turn = self._ledger.record_turn(said, repeated=repeated)
        self._follow_feedback(turn.feedback)
        self._watch.recorded(said, turn)
        self._follow_statuses(turn.statuses)
        requests = turn.requests
        silenced = {agent for agent in self._ask(requests) if agent not in repeated} if requests else set()
        statuses = {agent: its for agent in silenced if (its := [it for it in said[agent] if isinstance(it, Status)])}
        if statuses:  # their agents cannot be asked, so what they say now must do
            self._follow_statuses(self._ledger.record_turn(statuses, believed=True).statuses)

    def _follow_feedback(self, recorded: Iterable[tuple[str, Recorded]]) -> None:
        acks: dict[str, list[Ack]] = {}
        for agent, its in recorded:
            for refused in its.refused:
                facts = {"agent": agent, "command_id": refused.command_id, "code": refused.code}
                self._throttle.warn(_log, "message_refused_by_agent", agent, str(refused.code), **facts)
            if its.acks:
                acks.setdefault(agent, []).extend(its.acks)
        self._acknowledge(acks)

    def _follow_statuses(self, recorded: RecordedStatuses) -> None:
        for agent in recorded.conflicts:
            self._warn(
                "agent_name_used_twice", agent, reason=f"Another client connected as {agent}; give each its own name."
            )
        for status in recorded.new:
            try:
                self._on_status(status)
            except Exception as error:
                if _may_succeed_later(error):
                    raise
                self._drop_said(status.agent, status, error)

    def _statuses_in(self, message: Inbound) -> list[Status]:
        """Return the status in a message, or nothing if it is refused."""
        agent = message.agent
        try:
            status = decode_status(message.payload)
        except DecodeError as error:
            self._refuse("status_refused", agent, reason=str(error))
            return []
        if status.agent != agent:
            self._refuse("status_of_another_agent", agent, claimed=status.agent)
            return []
        if max(status.epoch or 0, status.closed_epoch or 0) > _LAST_EPOCH:
            self._refuse("status_refused", agent, reason="Its epoch is too close to the largest number.")
            return []
        return [status]

    def _feedbacks_in(self, message: Inbound) -> list[Feedback]:
        try:
            return decode_feedbacks(message.payload)
        except DecodeError as error:
            self._refuse("feedback_refused", message.agent, reason=str(error))
            return []

    def _receive_blob_requests(self, message: Inbound) -> Sequence[Said]:
        try:
            if message.retained:
                raise DecodeError("It was retained; publish without retain.")
            for request in decode_blob_requests(message.payload):
                self._blob_requests.put(message.agent, request)
        except DecodeError as error:
            self._refuse("blob_request_refused", message.agent, reason=str(error))
        return ()

    def _drop_said(self, agent: str, said: Said, error: Exception) -> None:
        content = json.dumps(to_json(said))
        if isinstance(said, Status):
            self._drop(agent, Channel.STATUS, None, content, error)
        else:
            self._drop(agent, Channel.FEEDBACK, said.command_id, content, error)

    def _drop(self, agent: str, channel: Channel, command_id: str | None, content: str, error: Exception) -> None:
        """Report a message that would always fail, and keep it for operators; nothing else is done with it."""
        if self._throttle.allow("message_failed", agent, channel, type(error).__name__) is not None:
            facts = {"agent": agent, "channel": channel, "command_id": command_id}
            _log.exception("message_failed", **facts, dropped=True)
        self._watch.refused("message_failed")
        refused = UnstoredMessage(agent, channel, command_id, str(error) or type(error).__name__, content, None)
        with suppress(RefusedByDatabase):  # it is in the log
            self._ledger.keep_refused(refused)

    def _refuse(self, event: str, agent: str, **facts: str) -> None:
        self._watch.refused(event)
        self._warn(event, agent, **facts)

    def _warn(self, event: str, agent: str, **facts: str) -> None:
        self._throttle.warn(_log, event, agent, agent=agent, **facts)


def _may_succeed_later(error: Exception) -> bool:
    """Whether the ledger, or the keys, failed for another reason than the message."""
    return isinstance(error, BrokerError) and not isinstance(error, RefusedByDatabase)


def _halves(said: Mapping[str, Sequence[Said]]) -> list[dict[str, Sequence[Said]]]:
    """Divide what was said by agents, or what one agent said in its order; nothing if there is only one message."""
    agents = list(said)
    if len(agents) > 1:
        half = len(agents) // 2
        return [{agent: said[agent] for agent in some} for some in (agents[:half], agents[half:])]
    ((agent, its),) = said.items()
    half = len(its) // 2
    return [{agent: its[:half]}, {agent: its[half:]}] if half else []
