"""acm ledger: backups of the ledger and their restoration, its integrity, its damaged rows, and what it refuses."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from broker.app.factories import open_ledger, utc_now
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, time_column
from broker.ledger.backup import Contents, back_up, restore
from broker.ledger.backup import check as check_file
from broker.ledger.damage import DamagedRow
from broker.ledger.location import ledger_url
from broker.ledger.refused_messages import UnstoredMessage
from broker.ledger.server_lock import refuse_running_servers
from broker.text import counted, rfc3339

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)
_DAMAGED = Listing[DamagedRow](
    "damaged row",
    (
        Column("table", lambda it: it.table),
        Column("key", lambda it: it.key),
        Column("agent", lambda it: it.agent),
        time_column("set_aside", lambda it: it.found_at),
        Column("damage", lambda it: it.reason),
    ),
    name=lambda it: it.key,
    document=lambda it: {**vars(it), "found_at": rfc3339(it.found_at)},
)
_REFUSED = Listing[UnstoredMessage](
    "refused message",
    (
        Column("command", lambda it: it.command_id),
        Column("agent", lambda it: it.agent),
        Column("channel", lambda it: it.channel),
        time_column("received", lambda it: it.received_at),
        Column("reason", lambda it: it.reason),
    ),
    name=lambda it: it.command_id or it.agent,
    document=lambda it: {**vars(it), "received_at": rfc3339(it.received_at)},
)


@app.callback()
def ledger() -> None:
    """Maintain the ledger."""


@app.command(epilog="Example: acm ledger restored --ledger sqlite:////var/lib/acm/ledger.db")
@with_session(LEDGER)
def restored(session: Session) -> None:
    """Complete every open command as interrupted, after the ledger was restored from a backup.

    Run it before the server starts: commands that are open in the backup may have run since, and would be sent again.
    Refused while a server runs on the ledger.
    """
    refuse_running_servers(session.database, session.config.client_id)
    count = session.ledger.settle_restored()
    session.show({"interrupted": count}, f"Completed as interrupted: {counted(count, 'command')}.")


@app.command(epilog="Example: acm ledger backup /var/backups/acm-ledger.db")
@with_session(LEDGER)
def backup(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, with mode 0600.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a ledger in SQLite into one file, as it is now, and check that file. A server may run meanwhile."""
    contents = back_up(ledger_url(session.config.ledger), file, replace=force)
    session.show({"file": str(file), **asdict(contents)}, f"Backed up to {file}: {_described(contents)}.")


@app.command(epilog="Example: acm ledger check --ledger sqlite:////var/backups/acm-ledger.db")
@with_session(LEDGER)
def check(session: Session) -> None:
    """Read the whole file of a ledger in SQLite, or of a backup, and report damage. A server may run meanwhile."""
    contents = check_file(ledger_url(session.config.ledger))
    session.show(asdict(contents), f"The ledger is sound: {_described(contents)}.")


@app.command("restore", epilog="Example: acm ledger restore /var/backups/acm-ledger.db")
@with_session(LEDGER)
def restore_backup(
    session: Session, file: Annotated[Path, typer.Argument(metavar="FILE", help="What acm ledger backup has written.")]
) -> None:
    """Put a backup in the place of the ledger in SQLite, and complete its open commands as acm ledger restored does.

    Refused while a program has the ledger open. The ledger that was there is kept beside it.
    """
    done = restore(ledger_url(session.config.ledger), file, _settle, utc_now())
    document = {**asdict(done.contents), "interrupted": done.interrupted, "kept": done.kept and str(done.kept)}
    completed = f"Completed as interrupted: {counted(done.interrupted, 'command')}."
    kept = f" The ledger before is kept as {done.kept}." if done.kept else ""
    session.show(document, f"Restored: {_described(done.contents)}. {completed}{kept}")


def _settle(url: str) -> int:
    with open_ledger(url) as ledger:
        return ledger.settle_restored()


def _described(contents: Contents) -> str:
    commands, agents = counted(contents.commands, "command"), counted(contents.agents, "agent")
    return f"{commands}, {agents}, {contents.size} bytes"


@app.command(epilog="Example: acm ledger damaged --json")
@with_session(LEDGER, lists=_DAMAGED, only_reads=True)
def damaged(session: Session) -> None:
    """List damaged rows of commands and agents: those that the server has set aside, and those found by reading all.

    --json also shows what is left of each, with secrets masked. acm prune removes what was set aside.
    """
    session.show_list(_DAMAGED, session.ledger.damaged_rows)


@app.command(epilog="Example: acm ledger refused --json")
@with_session(LEDGER, lists=_REFUSED, only_reads=True)
def refused(session: Session) -> None:
    """List messages of agents that the database refuses each time, newest first; at most 10 of each agent are kept.

    Such a result completes no command, and its agent sends it again until it is stored. --json also shows the message,
    with secrets masked. acm prune removes it from this list.
    """
    session.show_list(_REFUSED, session.ledger.refused_messages)
