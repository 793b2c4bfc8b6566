"""What the spans of MQTT messages say of them (https://opentelemetry.io/docs/specs/semconv/messaging/)."""

from broker.contract.topics import Channel, Topics

__all__ = [
    "messaging_attributes",
]


def messaging_attributes(
    operation: str, topics: Topics, agent: str, channel: Channel, command_type: str
) -> dict[str, str | int]:
    """Return the attributes of an operation on a message of this agent's channel about a command of this type.

    The operation is `send`, `receive` or `process`.
    """
    return {
        "messaging.system": "mqtt",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topics.of(agent, channel),
        "messaging.destination.template": f"{topics.prefix}/{{agent}}/{channel}",
        "acm.agent": agent,
        "acm.command.type": command_type,
    }
