"""What the parts of acm's command line share: options, output, logs and signals."""

import contextlib
import getpass
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.config import load_config
from broker.contract.messages import Origin
from broker.contract.plain_text import plain
from broker.ledger import Ledger
from broker.server_process import open_ledger

__all__ = [
    "AbandonOption",
    "AllowUnknownOption",
    "ConfigOption",
    "JsonOption",
    "LedgerOption",
    "WaitOption",
    "on_signals",
    "open_ledger_of",
    "origin_of_user",
    "print_json",
    "say",
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


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print what may hold words of others: it cannot control the terminal."""
    typer.echo(plain(text), err=to_stderr)


def print_json(document: Any) -> None:
    """Print one JSON document on a line, in ASCII: what could control a terminal is escaped."""
    typer.echo(json.dumps(document))


@contextlib.contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on TERM and INT while the block runs."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def open_ledger_of(config: Path | None, url: str | None) -> Iterator[Ledger]:
    """Open the ledger that flag, environment or file name, for the block."""
    ledger = open_ledger(load_config(config, {"ledger": url}).ledger)
    try:
        yield ledger
    finally:
        ledger.close()


def origin_of_user() -> Origin:
    """Return who asks: the user that runs acm, on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Origin(name=f"{user}@{socket.gethostname()}", module="acm")
