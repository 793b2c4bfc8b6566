"""`acm blob`: the files that agents fetch over MQTT."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from broker.cli.options import ConfigOption, JsonOption, LedgerOption, open_ledger_of
from broker.cli.output import print_json
from broker.cli.views import blob_json, blobs_table
from broker.contract.messages import JsonObject
from broker.errors import InvalidArgument
from broker.ledger.blobs import BlobStore

__all__ = [
    "blob_app",
    "put_files",
]


blob_app = typer.Typer(no_args_is_help=True, help="Files that agents fetch over MQTT, where they reach nothing else.")


@blob_app.command(epilog="Example: acm blob put agent-2.0.tar.gz")
def put(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to store.")],
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Store a file beside the ledger and print, as JSON, the artifact that commands refer to it by."""
    with open_ledger_of(config, ledger) as opened:
        print_json(msgspec.to_builtins(opened.blobs.put(file)))


@blob_app.command("list", epilog="Example: acm blob list --json")
def list_blobs(config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """List the stored files, the newest first."""
    with open_ledger_of(config, ledger) as opened:
        rows = opened.blobs.rows()
    if as_json:
        print_json([blob_json(row) for row in rows])
    else:
        Console().print(blobs_table(rows))


@blob_app.command(epilog="Example: acm blob rm 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
def rm(
    name: Annotated[str, typer.Argument(metavar="SHA256", help="Which file; `blob:` may stand before it.")],
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Take a stored file away; refused while a command that is not completed refers to it."""
    with open_ledger_of(config, ledger) as opened:
        opened.blobs.remove(name.removeprefix("blob:"))


def put_files(blobs: BlobStore, pairs: Iterable[str]) -> JsonObject:
    """Store the files given as KEY=FILE; return parameters that refer to them. Raises InvalidArgument, BlobError."""
    parameters: JsonObject = {}
    for pair in pairs:
        key, equals, file = pair.partition("=")
        if not (key and equals and file):
            raise InvalidArgument(f"--file {pair[:80]!r} is not KEY=FILE.")
        parameters[key] = msgspec.to_builtins(blobs.put(Path(file)))
    return parameters
