"""Messages that wait for a commit."""

from broker.contract.topics import Channel
from consumer.engine.inbox import AgentInbox
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import NoTrust, Verifier
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.refusals import KeptRefusals
from tests.support.makers import inbound

CHANNELS = (Channel.COMMAND, Channel.ACK, Channel.BLOB_CHUNK, Channel.CONTROL, Channel.COMMAND, Channel.ACK)


def test_committed_messages_are_released_in_order_of_arrival() -> None:
    verifier = Verifier("web-01", NoTrust(), TrustedClock(TurnedClock()), accept_unsigned=True)
    inbox = AgentInbox(verifier, KeptRefusals())
    messages = [inbound(b"{}", channel, mid=mid) for mid, channel in enumerate(CHANNELS, 1)]
    chunks = inbox.put(messages)
    assert [message.delivery.mid for message in chunks] == [3]
    assert [message.delivery.mid for message in inbox.commands()] == [1, 5]
    assert [message.delivery.mid for message in inbox.take()] == [1, 2, 4, 5, 6]
    assert (len(inbox), inbox.commands()) == (0, [])
