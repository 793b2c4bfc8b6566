"""acm ledger: after the ledger's database was restored from a backup, and its damaged rows."""

import typer
from rich.table import Table

from broker.cli.output import second, table
from broker.cli.session import LEDGER, Session, with_session
from broker.contract.messages import JsonObject
from broker.ledger.damage import DamagedRow
from broker.ledger.server_lock import refuse_running_servers
from broker.text import counted, rfc3339

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)


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


@app.command(epilog="Example: acm ledger damaged --json")
@with_session(LEDGER, only_reads=True)
def damaged(session: Session) -> None:
    """List damaged rows of commands and agents: those that the server has set aside, and those found by reading all.

    --json also shows what is left of each, with secrets masked. acm prune removes what was set aside.
    """
    rows = session.ledger.damaged_rows()
    session.show([_damaged_json(row) for row in rows], _damaged_table(rows))


def _damaged_json(row: DamagedRow) -> JsonObject:
    return {**vars(row), "found_at": rfc3339(row.found_at)}


def _damaged_table(rows: list[DamagedRow]) -> Table:
    columns = ("table", "key", "agent", "set aside (UTC)", "damage")
    cells = ((row.table, row.key, row.agent, second(row.found_at), row.reason) for row in rows)
    return table(counted(len(rows), "damaged row"), columns, cells)
