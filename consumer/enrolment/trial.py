"""The trial of an enrolment: it succeeds when a server at its broker has acknowledged a result sent over it."""

import threading
from dataclasses import dataclass

from broker.contract.codec import DecodeError, decode_acks, encode
from broker.contract.dsse import SignatureError
from broker.contract.messages import Ack, Feedback
from broker.contract.states import FeedbackKind, Outcome
from broker.contract.topics import Channel, Topics
from broker.mqtt.address import MqttError
from broker.mqtt.connection import MqttConnection
from broker.mqtt.delivery import Delivery
from consumer.enrolment.store import Enrolment
from consumer.enrolment.trusted_keys import GrantTrust
from consumer.errors import EnrolmentError
from consumer.ports import Clock
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import Verifier

__all__ = [
    "EnrolmentTrial",
]


_POLL_INTERVAL_S = 0.1
_RESEND_INTERVAL_S = 2.0
_TIMEOUT_S = 10.0
_DISCONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class EnrolmentTrial:
    """Carries one result over an enrolment; the agent must have no other connection under its name to that broker.

    The result belongs to no command, so every server stores it as unmatched and acks it. The ack must be signed with
    the enrolment's keys, unless the agent accepts unsigned messages.
    """

    enrolment: Enrolment
    store_generation: str
    incarnation: str
    clock: Clock
    accept_unsigned: bool

    def run(self, deadline: float, cancelled: threading.Event) -> None:
        """Return once the result is acknowledged; raises EnrolmentError if that does not happen in time."""
        grant = self.enrolment.grant
        topics = Topics(grant.topic_prefix)
        ack_topic = topics.of(grant.agent, Channel.ACK)
        try:
            connection = MqttConnection(grant.broker, grant.agent, subscriptions=[ack_topic], tls=self.enrolment.tls)
        except MqttError as error:
            raise EnrolmentError(str(error), code="invalid_broker") from error
        connection.start()
        try:
            end = min(deadline, self.clock.monotonic() + _TIMEOUT_S)
            self._carry(connection, topics.of(grant.agent, Channel.FEEDBACK), ack_topic, end, cancelled)
        finally:
            connection.stop(_DISCONNECT_TIMEOUT_S)

    def _carry(
        self, connection: MqttConnection, topic: str, ack_topic: str, end: float, cancelled: threading.Event
    ) -> None:
        result, verifier, send_at = self._result(), self._verifier(), 0.0
        while self.clock.monotonic() < end and not cancelled.is_set():
            if connection.wait_connected(0) and self.clock.monotonic() >= send_at:
                connection.publish(topic, encode([result]))
                send_at = self.clock.monotonic() + _RESEND_INTERVAL_S
            for delivery in connection.drain(_POLL_INTERVAL_S):
                if delivery.topic == ack_topic and _acknowledges(delivery, result, verifier):
                    connection.acknowledge([delivery])
                    return
        raise self._failure(connection, cancelled)

    def _result(self) -> Feedback:
        grant = self.enrolment.grant
        return Feedback(
            FeedbackKind.RESULT,
            grant.agent,
            self.store_generation,
            self.incarnation,
            "completed",
            "This result shows that the agent can be reached over its new enrolment.",
            command_id=f"enrolment-{self.enrolment.directory.name}",
            outcome=Outcome.SUCCESS,
            finished_at=self.clock.now(),
            digest=self.enrolment.directory.name,
        )

    def _verifier(self) -> Verifier:
        grant = self.enrolment.grant
        clock = TrustedClock(self.clock)
        return Verifier(grant.agent, GrantTrust(grant), clock, accept_unsigned=self.accept_unsigned)

    def _failure(self, connection: MqttConnection, cancelled: threading.Event) -> EnrolmentError:
        if cancelled.is_set():
            return EnrolmentError("The enrolment was cancelled.", code="cancelled")
        if connection.last_error is not None:
            code, reason = "connection_failed", connection.last_error
        elif not connection.wait_connected(0):
            code, reason = "timed_out", "its broker did not answer in time."
        else:
            code, reason = "unacknowledged", "its broker accepted the agent, but no server acknowledged a result."
        return EnrolmentError(f"The new enrolment carried no result: {reason}", code=code)


def _acknowledges(delivery: Delivery, result: Feedback, verifier: Verifier) -> bool:
    try:
        acks = [] if delivery.retained else decode_acks(verifier.open(Channel.ACK, delivery.payload).trusted())
    except (DecodeError, SignatureError):
        return False  # the agent's own connection reports it
    return Ack(result.command_id or "", result.digest or "") in acks
