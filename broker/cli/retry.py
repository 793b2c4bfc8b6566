"""acm retry: sends a command again that has ended, or those of an operation that ended in an error."""

from typing import Annotated

import typer

from broker.cli.completions import complete_commands
from broker.cli.delivery import follow
from broker.cli.identifiers import find_command_id, find_operation_id, names_operation
from broker.cli.options import WaitCommand, WaitOption
from broker.cli.session import LEDGER, Session, with_session

__all__ = [
    "app",
]


app = typer.Typer()


@app.command(cls=WaitCommand, epilog="Example: acm retry 0190f5b2 --wait")
@with_session(LEDGER, over_api=True)
def retry(
    session: Session,
    given_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            autocompletion=complete_commands,
            help="Id of a command or an operation, or the beginning of it.",
        ),
    ],
    wait: WaitOption = None,
) -> None:
    """Send a command again that has ended: a new one with the same parameters, timeout and time to expire.

    Of an operation, those are sent again, as a new operation, that ended in an error.
    """
    fleet = session.fleet
    if names_operation(fleet, given_id):
        sent = fleet.retry_operation(find_operation_id(fleet, given_id))
    else:
        sent = fleet.retry(find_command_id(fleet, given_id))
    follow(session, sent, wait)
