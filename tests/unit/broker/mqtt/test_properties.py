"""The length of user properties, as paho writes them."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.contract.trace_context import TraceContext
from broker.mqtt.broker_limits import property_bytes

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_length_of_a_context_is_that_of_its_properties() -> None:
    for state in ("", "a=1", f"a={'x' * 200}"):
        context = TraceContext(PARENT, state)
        written = Properties(PacketTypes.PUBLISH)
        written.UserProperty = list(context.pairs())
        without = len(Properties(PacketTypes.PUBLISH).pack())
        assert 0 <= property_bytes(context.pairs()) - (len(written.pack()) - without) <= 1
