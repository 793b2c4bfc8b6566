"""acm blob: files that agents fetch over MQTT."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.completions import complete_blobs
from broker.cli.documents import document_of
from broker.cli.files import store_file
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, time_column
from broker.fleet.blob_models import BlobView
from broker.fleet.pages import read_pages
from broker.suggestions import only_beginning_with

if TYPE_CHECKING:
    from broker.fleet.blob_port import StoredBlobs

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)


_BLOBS = Listing[BlobView](
    "blob",
    (
        Column("sha256", lambda it: it.sha256),
        Column("bytes", lambda it: it.size),
        time_column("added", lambda it: it.added_at),
        Column("file", lambda it: it.file_name),
    ),
    name=lambda it: it.sha256,
    document=document_of,
)


@app.command(epilog="Example: acm blob put agent-2.0.tar.gz")
@with_session(LEDGER, over_api=True, creates_ledger=True)
def put(session: Session, file: Annotated[Path, typer.Argument(metavar="FILE", help="File to store.")]) -> None:
    """Store a file in the ledger, and print the artifact (JSON) for the parameters of commands."""
    artifact = document_of(store_file(session.blobs, file, quiet=session.printer.for_programs))
    session.show(artifact, json.dumps(artifact))


@app.command("list", epilog="Example: acm blob list --json")
@with_session(LEDGER, over_api=True, lists=_BLOBS, only_reads=True)
def list_blobs(session: Session) -> None:
    """List stored files, newest first."""
    blobs = session.blobs
    session.show_list(_BLOBS, lambda: _all(blobs))


@app.command(epilog="Example: acm blob rm 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
@with_session(LEDGER, over_api=True)
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
    blobs = session.blobs
    given = name.removeprefix("blob:")
    sha256 = only_beginning_with(given, (it.sha256 for it in _all(blobs))) or given
    removed = blobs.remove_blob(sha256)
    session.show(document_of(removed), f"{removed.file_name or sha256} is deleted ({removed.size} bytes).")


def _all(blobs: "StoredBlobs") -> list[BlobView]:
    return read_pages(lambda cursor, count: blobs.blobs(cursor=cursor, limit=count))
