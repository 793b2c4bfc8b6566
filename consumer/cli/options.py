"""The options that several commands of acm-agent have."""

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "STATE_VARIABLE",
    "AgentOption",
    "BrokerOption",
    "ConfigOption",
    "StateDirectory",
    "StateOption",
    "UnsignedOption",
    "agent_flags",
]


STATE_VARIABLE = "ACM_STATE"
ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="ACM_AGENT_CONFIG", metavar="FILE", help="TOML configuration file.")
]
AgentOption = Annotated[str | None, typer.Option("--agent", help="The agent's name, also its MQTT client id.")]
BrokerOption = Annotated[
    str | None, typer.Option("--broker", help="mqtt://HOST:PORT; an enrolled agent takes it from its enrolment.")
]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory, used by this agent alone.")]
StateDirectory = Annotated[Path, typer.Option("--state", envvar=STATE_VARIABLE, help="State directory of the agent.")]
UnsignedOption = Annotated[
    bool | None, typer.Option("--accept-unsigned", help="Also run unsigned commands, which any MQTT client can send.")
]


def agent_flags(
    agent: str | None, broker: str | None, state: Path | None, accept_unsigned: bool | None = None
) -> dict[str, Any]:
    """Return these options as the flags of `consumer.config`."""
    return {"agent": agent, "broker": broker, "state": state and str(state), "accept_unsigned": accept_unsigned}
