"""What the parts of acm's command line share: options, output, logs and signals."""

import contextlib
import getpass
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from broker.app.config import load_config
from broker.app.factories import open_ledger
from broker.contract.messages import Origin
from broker.ledger.ledger import Ledger

__all__ = [
    "AbandonOption",
    "AllowUnknownOption",
    "ConfigOption",
    "JsonOption",
    "LedgerOption",
    "WaitOption",
    "open_ledger_of",
    "origin_of_user",
]


ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="ACM_CONFIG", metavar="FILE", help="TOML configuration file.")
]
LedgerOption = Annotated[
    str | None, typer.Option("--ledger", help="Database URL, for example sqlite:////var/lib/acm/ledger.db.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AbandonOption = Annotated[
    bool,
    typer.Option(
        "--abandon", help="Give it up: it ends here as interrupted, without its agent, and may have run or yet run."
    ),
]
AllowUnknownOption = Annotated[
    bool, typer.Option("--allow-unknown", help="Also take an agent that the ledger does not know.")
]
WaitOption = Annotated[
    str | None, typer.Option("--wait", metavar="[SECONDS]", help="Wait for the result, 60 seconds if not said.")
]


@contextlib.contextmanager
def open_ledger_of(config: Path | None, url: str | None) -> Iterator[Ledger]:
    """Open the ledger that flag, environment or file name, for the block."""
    with open_ledger(load_config(config, {"ledger": url}).ledger) as ledger:
        yield ledger


def origin_of_user() -> Origin:
    """Return who asks: the user that runs acm, on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Origin(name=f"{user}@{socket.gethostname()}", module="acm")
