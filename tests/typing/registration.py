"""Checked by mypy, never run: correct usage is accepted, incorrect usage rejected (an unused ignore is an error)."""

from dataclasses import dataclass

from broker import Command
from consumer import (
    Agent,
    AgentConfig,
    AgentRestart,
    Context,
    Handler,
    Interruption,
    Result,
    StoredCommand,
    load_plug_ins,
)


@dataclass(frozen=True)
class Fetch:
    name: str


@dataclass(frozen=True)
class Store:
    name: str


def fetch(command: Command, parameters: Fetch, context: Context) -> Result:
    return Result(parameters.name)


def restart(command: Command, parameters: Fetch, context: Context) -> AgentRestart:
    return AgentRestart()


def ask(stored: StoredCommand, context: Context) -> Result:
    return Result(stored.command.id)


def untyped_result(command: Command, parameters: Fetch, context: Context) -> dict[str, str]:
    return {}


FITS = Handler("fetch", Interruption.RERUN, Fetch, fetch)
REPLACES = Handler("restart-agent", Interruption.PROBE, Fetch, restart, ask, replaces=True)
OTHER_PARAMETERS = Handler("store", Interruption.RERUN, Store, fetch)  # type: ignore[arg-type]
NO_RESULT = Handler("fetch", Interruption.RERUN, Fetch, untyped_result)  # type: ignore[arg-type]
NO_RULE = Handler("fetch", "rerun", Fetch, fetch)  # type: ignore[arg-type]


def embed(config: AgentConfig) -> Agent:
    Agent(config, handlers=[fetch])  # type: ignore[list-item]
    return Agent(config, handlers=[FITS, REPLACES], plug_ins=load_plug_ins())
