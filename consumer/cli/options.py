"""The options that several commands of acm-agent have."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AgentOption", "BrokerOption", "ConfigOption", "JsonOption", "StateDirectory", "StateOption"]


ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="ACM_AGENT_CONFIG", metavar="FILE", help="TOML configuration file.")
]
AgentOption = Annotated[str | None, typer.Option("--agent", help="The agent's name, also its MQTT client id.")]
BrokerOption = Annotated[
    str | None, typer.Option("--broker", help="mqtt://HOST:PORT; an enrolled agent takes it from its enrolment.")
]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory, used by this agent alone.")]
StateDirectory = Annotated[Path, typer.Option("--state", envvar="ACM_STATE", help="State directory of the agent.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
