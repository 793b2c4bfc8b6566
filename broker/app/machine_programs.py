"""The programs that `acm up` runs, in the order of their start."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

from broker.app.config import ServerConfig, enrolment_url
from broker.app.credentials import open_authority
from broker.app.factories import open_configured_database, utc_now
from broker.app.machine_directory import MachineDirectory
from broker.app.supervisor import SupervisedProgram
from broker.enrolment.tokens import TokenStore, new_enrolment_token

__all__ = [
    "programs_of",
]


# Without -P, a module in the working directory could take the place of ours.
_ACM = (sys.executable, "-P", "-m", "broker")
_ACM_AGENT = (sys.executable, "-P", "-m", "consumer")
_TOKEN_TTL = timedelta(minutes=5)


def programs_of(machine: MachineDirectory, config: ServerConfig, agent: str | None) -> list[SupervisedProgram]:
    """Return the programs of one machine, and of `agent` on it; each depends only on those before it."""
    settings = ("--config", str(machine.settings))
    servers = {
        "broker": ("broker", "run", "--dir", str(machine.broker)),
        "server": ("server", *settings),
        "enroll-server": ("enroll-server", *settings),
    }
    programs = [SupervisedProgram(name, (*_ACM, *words), machine.health(name)) for name, words in servers.items()]
    return programs if agent is None else [*programs, *_programs_of_agent(machine, config, agent)]


def _programs_of_agent(machine: MachineDirectory, config: ServerConfig, agent: str) -> Iterator[SupervisedProgram]:
    state = machine.state_of_agent(agent)
    if not _is_enrolled(state):
        server = enrolment_url(config)
        enroll = ("enroll", "--server", server, "--token", "-", "--agent", agent, "--state", str(state))
        yield SupervisedProgram("enroll", (*_ACM_AGENT, *enroll), text=partial(_new_token, config, agent))
    yield SupervisedProgram(agent, (*_ACM_AGENT, "run", "--state", str(state)), machine.health(f"agent-{agent}"))


def _is_enrolled(state: Path) -> bool:
    """Whether the agent of a state directory is enrolled (docs/operations.md describes its files)."""
    return (state / "enrolment" / "current").exists()


def _new_token(config: ServerConfig, agent: str) -> str:
    token = new_enrolment_token(open_authority(config).fingerprint)
    with open_configured_database(config.ledger) as database:
        TokenStore(database, now=utc_now).add(agent, token, _TOKEN_TTL)
    return token.text
