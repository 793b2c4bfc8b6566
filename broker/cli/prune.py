"""acm prune: removes what was completed long ago from the ledger."""

from datetime import timedelta
from typing import Annotated

import typer

from broker.cli.session import LEDGER, Session, with_session
from broker.durations import parse_duration
from broker.enrolment.pruning import EnrolmentPruning
from broker.ledger.pruning import LedgerPruning
from broker.text import counted

__all__ = [
    "app",
]


app = typer.Typer()
_NOUNS = {
    "commands": ("command", None),
    "operations": ("operation", None),
    "unmatched_results": ("unmatched result", None),
    "tokens": ("token", None),
    "certificates": ("certificate", None),
    "agents": ("forgotten agent", None),
}


@app.command(epilog="Example: acm prune --older-than 90d --dry-run")
@with_session(LEDGER)
def prune(
    session: Session,
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than",
            metavar="DURATION",
            parser=parse_duration,
            show_default=False,
            help="Remove what was completed longer ago than this, such as 90d.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
    vacuum: Annotated[
        bool,
        typer.Option(
            "--vacuum",
            help="Return the free pages of a SQLite file to the file system. The file is rewritten: that needs as "
            "much room, and other writers wait meanwhile.",
        ),
    ] = False,
) -> None:
    """Remove completed commands and other data that ended long ago. Open commands stay, and audits still verify.

    A running server works in between.
    """
    now = session.clock()
    before = now - timedelta(seconds=older_than)
    steps = (LedgerPruning(session.database, before), EnrolmentPruning(session.database, before, now))
    counts = {kind: count for step in steps for kind, count in (step.counts() if dry_run else step.run()).items()}
    if vacuum and not dry_run:
        session.database.vacuum()
    free = session.database.free_bytes()
    text = ", ".join(counted(counts[kind], *noun) for kind, noun in _NOUNS.items())
    said = f"{'Would remove' if dry_run else 'Removed'} what ended before {before:%Y-%m-%d %H:%M} UTC: {text}."
    if vacuum and not session.database.is_sqlite:
        said += " PostgreSQL uses the room again by itself: there is nothing to vacuum."
    if free and not dry_run:
        said += f" The file keeps {free >> 20} MiB of free pages, which are used again; --vacuum returns them."
    session.show({**counts, "dry_run": dry_run, "free_bytes": free}, said)
