"""acm agents: the last status of each agent, and forgetting agents that are gone."""

from itertools import chain
from typing import Annotated

import msgspec
import typer

from broker.cli.agent_list import AGENTS
from broker.cli.completions import complete_agents
from broker.cli.expiry import warn_of_expiry
from broker.cli.session import LEDGER, Session, with_session
from broker.console.formats import fact_lines
from broker.console.output import print_text
from broker.fleet.models import AgentFilter, AgentView
from broker.fleet.pages import read_pages
from broker.text import counted

__all__ = [
    "app",
]


app = typer.Typer(invoke_without_command=True)


@app.callback(epilog="Example: acm agents --json")
@with_session(LEDGER, over_api=True, lists=AGENTS, watches=True, only_reads=True, is_group=True)
def agents(session: Session) -> None:
    """List agents with the last status that each has published, and the state of its enrolment.

    On the server's machine, it warns of certificates of the broker and the servers that expire within 30 days.
    """
    fleet = session.fleet

    def read() -> list[AgentView]:
        return read_pages(lambda cursor, count: fleet.agents(AgentFilter(), cursor=cursor, limit=count))

    # Read first: a ledger that does not answer is all that is said then.
    reads = chain([read()], iter(read, None))
    if not fleet.servers():
        print_text("acm: No server runs on this ledger, so statuses are out of date: start acm server.", to_stderr=True)
    session.show_list(AGENTS, lambda: next(reads))
    if not session.is_over_api:
        warn_of_expiry(session)


@app.command(epilog="Example: acm agents show web-01")
@with_session(LEDGER, over_api=True, only_reads=True)
def show(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", autocompletion=complete_agents, help="Name of the agent.")],
) -> None:
    """Show everything that is known of an agent."""
    found = session.fleet.agent(agent)
    session.show(AGENTS.document(found), "\n".join(fact_lines(AGENTS.columns, found)))


@app.command(epilog="Example: acm agents forget web-02")
@with_session(LEDGER, over_api=True)
def forget(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", autocompletion=complete_agents, help="Name of the agent.")],
    force: Annotated[bool, typer.Option("--force", help="Forget it although it is online.")] = False,
) -> None:
    """Take an agent that is gone out of the lists, of --all and of its groups. Its open commands end as interrupted.

    Refused while the agent is online, unless it was revoked. It is listed again when it is enrolled, sent a command
    with --allow-unknown, or online. acm prune then removes it with its commands.
    """
    forgotten = session.fleet.forget(agent, force=force)
    session.show(
        msgspec.to_builtins(forgotten),
        f"Forgot {agent}; completed as interrupted: {counted(forgotten.interrupted, 'open command')}.",
    )
