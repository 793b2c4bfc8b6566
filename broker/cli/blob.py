"""acm blob: files that agents fetch over MQTT."""

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from broker.cli.completions import complete_blobs
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, time_column
from broker.contract.messages import JsonObject
from broker.ledger.blobs import BlobRow
from broker.suggestions import only_beginning_with
from broker.text import rfc3339

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)


def _json(row: BlobRow) -> JsonObject:
    return {**vars(row.artifact), "file_name": row.file_name, "added_at": rfc3339(row.added_at)}


_BLOBS = Listing[BlobRow](
    "blob",
    (
        Column("sha256", lambda it: it.artifact.sha256),
        Column("bytes", lambda it: it.artifact.size),
        time_column("added", lambda it: it.added_at),
        Column("file", lambda it: it.file_name),
    ),
    name=lambda it: it.artifact.sha256,
    document=_json,
)


@app.command(epilog="Example: acm blob put agent-2.0.tar.gz")
@with_session(LEDGER, creates_ledger=True)
def put(session: Session, file: Annotated[Path, typer.Argument(metavar="FILE", help="File to store.")]) -> None:
    """Store a file beside the ledger, and print the artifact (JSON) for the parameters of commands."""
    artifact = msgspec.to_builtins(session.ledger.blobs.put(file))
    session.show(artifact, json.dumps(artifact))


@app.command("list", epilog="Example: acm blob list --json")
@with_session(LEDGER, lists=_BLOBS, only_reads=True)
def list_blobs(session: Session) -> None:
    """List stored files, newest first."""
    session.show_list(_BLOBS, session.ledger.blobs.rows)


@app.command(epilog="Example: acm blob rm 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
@with_session(LEDGER)
def rm(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="SHA256",
            autocompletion=complete_blobs,
            help="SHA-256 of the file, with or without `blob:`, or the beginning of it.",
        ),
    ],
) -> None:
    """Delete a stored file. Refused while an open command refers to it."""
    blobs = session.ledger.blobs
    rows = {row.artifact.sha256: row for row in blobs.rows()}
    given = name.removeprefix("blob:")
    sha256 = only_beginning_with(given, rows) or given
    blobs.remove(sha256)
    row = rows[sha256]
    session.show(_json(row), f"{row.file_name or sha256} is deleted ({row.artifact.size} bytes).")
