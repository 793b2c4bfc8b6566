"""acm blob: files that agents fetch over MQTT."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Column, Table

from broker.cli.arguments import check_utf8
from broker.cli.output import id_column, minute, print_json, table
from broker.cli.session import LEDGER, Session, with_session
from broker.contract.messages import JsonObject
from broker.errors import InvalidArgument
from broker.ledger.blobs import BlobRow, BlobStore
from broker.text import counted, rfc3339

__all__ = [
    "app",
    "put_files",
]


app = typer.Typer(no_args_is_help=True)


@app.command(epilog="Example: acm blob put agent-2.0.tar.gz")
@with_session(LEDGER, json=False, creates_ledger=True)
def put(session: Session, file: Annotated[Path, typer.Argument(metavar="FILE", help="File to store.")]) -> None:
    """Store a file beside the ledger, and print the artifact (JSON) for the parameters of commands."""
    print_json(msgspec.to_builtins(session.ledger.blobs.put(file)))


@app.command("list", epilog="Example: acm blob list --json")
@with_session(LEDGER, only_reads=True)
def list_blobs(session: Session) -> None:
    """List stored files, newest first."""
    rows = session.ledger.blobs.rows()
    session.show([_json(row) for row in rows], _table(rows))


@app.command(epilog="Example: acm blob rm 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
@with_session(LEDGER, json=False)
def rm(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="SHA256", help="SHA-256 of the file, with or without `blob:`.")],
) -> None:
    """Delete a stored file. Refused while an open command refers to it."""
    session.ledger.blobs.remove(name.removeprefix("blob:"))


def put_files(blobs: BlobStore, pairs: Iterable[str]) -> JsonObject:
    """Store the files given as KEY=FILE; return parameters that refer to them. Raises InvalidArgument, BlobError."""
    parameters: JsonObject = {}
    for pair in pairs:
        key, equals, file = pair.partition("=")
        if not (key and equals and file):
            raise InvalidArgument(f"--file {pair[:80]!r} is not KEY=FILE.", code="not_key_file")
        check_utf8("A key of --file", key)
        parameters[key] = msgspec.to_builtins(blobs.put(Path(file)))
    return parameters


def _json(row: BlobRow) -> JsonObject:
    return {**vars(row.artifact), "file_name": row.file_name, "added_at": rfc3339(row.added_at)}


def _table(rows: list[BlobRow]) -> Table:
    columns = (id_column("sha256", 64), Column("bytes", justify="right"), "added (UTC)", "file")
    cells = ((row.artifact.sha256, str(row.artifact.size), minute(row.added_at), row.file_name) for row in rows)
    return table(counted(len(rows), "blob"), columns, cells)
