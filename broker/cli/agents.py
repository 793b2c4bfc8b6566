"""acm agents: the last status of each agent, and forgetting agents that are gone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from broker.cli.expiry import warn_of_expiry
from broker.cli.output import print_text, second, table
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.targets import check_known
from broker.contract.codec import to_json
from broker.contract.messages import JsonObject
from broker.enrolment.enrolment_states import EnrolmentState, enrolment_states
from broker.errors import BrokerError
from broker.ledger.agents import AgentRow, AgentState
from broker.ledger.server_lock import running_servers
from broker.text import counted, rfc3339

__all__ = [
    "agent_json",
    "agents_table",
    "app",
]


app = typer.Typer(invoke_without_command=True)


class AgentIsOnline(BrokerError):
    """An agent that is to be forgotten is online."""

    code = "agent_is_online"


@app.callback(epilog="Example: acm agents --json")
@with_session(LEDGER, only_reads=True)
def agents(session: Session, context: typer.Context) -> None:
    """List agents with the last status that each has published, and the state of its enrolment.

    Warns of certificates of the broker and the servers that expire within 30 days.
    """
    if context.invoked_subcommand is not None:
        return
    rows = _known_now(session)
    enrolments = enrolment_states(session.database, session.clock())
    document = [{**agent_json(row), **_enrolment_json(enrolments.get(row.name))} for row in rows]
    session.show(document, agents_table(rows, enrolments))
    warn_of_expiry(session)


def _known_now(session: Session) -> list[AgentRow]:
    """Return all agents; while no server runs, it is unknown whether those that were online still are."""
    rows = session.ledger.agents()
    if running_servers(session.database):
        return rows
    print_text("acm: No server runs on this ledger, so statuses are out of date: start acm server.", to_stderr=True)
    return [replace(row, state=AgentState.UNKNOWN) if row.state is AgentState.ONLINE else row for row in rows]


@app.command(epilog="Example: acm agents forget web-02")
@with_session(LEDGER)
def forget(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of the agent.")],
    force: Annotated[bool, typer.Option("--force", help="Forget it although it is online.")] = False,
) -> None:
    """Take an agent that is gone out of the lists, of --all and of its groups. Its open commands end as interrupted.

    Refused while the agent is online, unless it was revoked. It is listed again when it is enrolled, sent a command
    with --allow-unknown, or online. acm prune then removes it with its commands.
    """
    check_known(session.ledger, [agent], can_allow=False)
    is_revoked = enrolment_states(session.database, session.clock()).get(agent) is EnrolmentState.REVOKED
    is_online = any(row.name == agent and row.state is AgentState.ONLINE for row in session.ledger.agents())
    if is_online and not (is_revoked or force):
        raise AgentIsOnline(
            f"{agent} is online, and would be listed again: stop it, revoke it (`acm enrolment revoke {agent}`), or "
            "use --force."
        )
    count = session.ledger.forget(agent)
    session.show(
        {"agent": agent, "interrupted": count},
        f"Forgot {agent}; completed as interrupted: {counted(count, 'open command')}.",
    )


def agent_json(row: AgentRow) -> JsonObject:
    """Return an agent's state and last status as JSON, when that was received, and the number of its open commands."""
    status = to_json(row.status) if row.status else {"agent": row.name}
    return {
        **status,
        "online": row.state is AgentState.ONLINE,
        "state": row.state,
        "seen_at": rfc3339(row.seen_at),
        "open_commands": row.open_commands,
        "name_conflict": row.name_conflict,
    }


def _enrolment_json(state: EnrolmentState | None) -> JsonObject:
    return {"enrolment": state, "revoked": state is EnrolmentState.REVOKED}


def agents_table(rows: list[AgentRow], enrolments: Mapping[str, EnrolmentState] = MappingProxyType({})) -> Table:
    """Return agents as a table, with those marked whose enrolment was revoked or has expired."""
    columns = ("agent", "state", "last seen (UTC)", "version", "queue", "running", "open", "last error")
    return table(counted(len(rows), "agent"), columns, (_agent_cells(row, enrolments.get(row.name)) for row in rows))


def _agent_cells(row: AgentRow, enrolment: EnrolmentState | None) -> Iterator[str | Text]:
    status, is_valid = row.status, enrolment in (None, EnrolmentState.VALID)
    yield row.name
    colour = "green" if row.state is AgentState.ONLINE and is_valid else "red"
    yield Text(row.state if is_valid else f"{row.state}, {enrolment}", colour)
    yield second(row.seen_at)
    yield (status.version or "") if status else ""
    yield str(status.queue_depth) if status else ""
    yield (status.running_command or "") if status else ""
    yield str(row.open_commands)
    conflict = f"Another client connected as {row.name}. " if row.name_conflict else ""
    yield conflict + ((status.last_error or "") if status else "")
