"""acm ledger: after the ledger's database was restored from a backup."""

import typer

from broker.cli.session import LEDGER, Session, with_session
from broker.text import counted

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
    """
    count = session.ledger.settle_restored()
    session.show({"interrupted": count}, f"Completed as interrupted: {counted(count, 'command')}.")
