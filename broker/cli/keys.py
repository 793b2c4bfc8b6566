"""acm keys: the keys that the server signs with, and which agents know them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from broker.app.config import load_config
from broker.app.factories import open_database, open_signing_key_store, signing_keys_path, utc_now
from broker.cli.options import ConfigOption, JsonOption, LedgerOption, origin_of_user
from broker.cli.output import iso, print_json
from broker.contract.messages import JsonObject
from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation
from broker.server.key_distribution import RolloutProgress, announce, rollout_of
from broker.signing.key_list import KeyEntry
from broker.signing.key_store import SigningKeyStore, create_signing_keys
from broker.text import counted

__all__ = [
    "keys_app",
]


_NAMED = 5
keys_app = typer.Typer(no_args_is_help=True, help="The keys that the server signs what it says to agents with.")
KeysOption = Annotated[
    str | None,
    typer.Option(
        "--keys", metavar="DIR", help="The directory of the keys; configured as signing_keys, else signing in ca."
    ),
]


class AgentsLeftBehind(BrokerError):
    """Agents would not take any command any more."""


@dataclass(frozen=True)
class _Desk:
    """The keys, and the ledger by which the agents are told of them."""

    book: SigningKeyStore
    ledger: Ledger
    enrolments: EnrolmentStore

    def rollout(self) -> RolloutProgress:
        """How far the list, as it is now, has come."""
        return rollout_of(self.ledger, self.enrolments, self.book.version, datetime.now(UTC))

    def announce(self) -> Operation | None:
        """Tell the agents of the list as it is now, and remember that.

        The list is changed before: what it names can sign, while agents that were told of a key that nobody has, or
        not to trust one that still signs alone, would be lost. A crash in between is seen by `announced`. Whoever
        enrolled meanwhile is looked for after the change, for the list that was granted is the old one.
        """
        update = self.book.update
        operation = announce(self.ledger, self.rollout(), update, origin_of_user())
        self.book.mark_announced(update.version)
        return operation


@contextlib.contextmanager
def _desk(config: Path | None, keys: str | None, ledger: str | None) -> Iterator[_Desk]:
    settings = load_config(config, {"signing_keys": keys, "ledger": ledger})
    book = open_signing_key_store(settings)
    with open_database(settings.ledger) as database:
        yield _Desk(book, Ledger(database, now=utc_now), EnrolmentStore(database, now=utc_now))


@keys_app.command(epilog="Example: acm keys init --keys /var/lib/acm/signing")
def init(keys: KeysOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Make a new directory with one key, for a server without the authority's; `acm ca init` makes one as well."""
    path = signing_keys_path(load_config(config, {"signing_keys": keys}))
    entry = create_signing_keys(path, datetime.now(UTC))
    if as_json:
        print_json({"directory": str(path), "id": entry.id})
    else:
        typer.echo(f"The signing keys are in {path}, with the key {entry.id}; keep a copy of it in a safe place.")


@keys_app.command("list", epilog="Example: acm keys list --json")
def list_keys(
    keys: KeysOption = None, config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """List the keys, and say how many of the enrolled agents go by this list."""
    with _desk(config, keys, ledger) as desk:
        book, rollout = desk.book, desk.rollout()
        behind = rollout.behind(book.version)
    if as_json:
        print_json(_list_json(book, rollout, behind))
        return
    Console().print(_table(book.entries, len(rollout.versions) - len(behind), len(rollout.versions)))
    if behind:
        typer.echo(f"Not confirmed by: {_names(behind)}.")
    if not book.announced:
        typer.echo("The agents were not told of the last change: `acm keys rotate` does that, and makes no new key.")


@keys_app.command(epilog="Example: acm keys rotate")
def rotate(
    keys: KeysOption = None, config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """Add a key, which signs beside the others from now on, and tell the agents. Nothing is revoked.

    Where an earlier change was cut short before the agents were told, they are told of that, and no key is added.
    """
    with _desk(config, keys, ledger) as desk:
        above = desk.rollout().newest_told
        entry = desk.book.rotate(datetime.now(UTC), above=above) if desk.book.announced else None
        operation = desk.announce()
    if as_json:
        print_json({"id": entry.id if entry else None, **_told_json(desk.book, operation)})
    else:
        done = f"{entry.id} signs from now on, beside the others." if entry else "An earlier change was cut short."
        typer.echo(f"{done} {_told(operation)}")


@keys_app.command(epilog="Example: acm keys revoke 3f9c2a7d5b1e8064")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")],
    leave_behind: Annotated[
        bool,
        typer.Option(
            "--leave-agents-behind",
            help="Even if agents know no other key: they refuse all commands until they renew their certificate.",
        ),
    ] = False,
    keys: KeysOption = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a key never sign again, remove its private half, and tell the agents to trust it no more."""
    with _desk(config, keys, ledger) as desk:

        def check(needed: int) -> None:
            left = [] if leave_behind else desk.rollout().behind(needed)
            if left:
                raise AgentsLeftBehind(_refusal(key_id, left))

        entry = desk.book.revoke(key_id, datetime.now(UTC), above=desk.rollout().newest_told, check=check)
        operation = desk.announce()
    if as_json:
        print_json({"id": entry.id, **_told_json(desk.book, operation)})
    else:
        typer.echo(f"{entry.id} never signs again. {_told(operation)}")


def _refusal(key_id: str, left: list[str]) -> str:
    return (
        f"{counted(len(left), 'agent has', 'agents have')} not confirmed any other key than {key_id} and would refuse "
        f"all commands until the certificate is renewed: {_names(left)}. Wait until that is so, or another key is "
        "confirmed (`acm keys list`), or say --leave-agents-behind, as where the key was stolen."
    )


def _names(agents: list[str]) -> str:
    more = len(agents) - _NAMED
    return ", ".join(agents[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _told(operation: Operation | None) -> str:
    if operation is None:
        return "There is no agent to be told."
    told = counted(operation.size, "agent is", "agents are")
    return f"{told} told by one operation: acm operation show {operation.id}"


def _told_json(book: SigningKeyStore, operation: Operation | None) -> JsonObject:
    return {
        "version": book.version,
        "operation": operation.id if operation else None,
        "agents": operation.size if operation else 0,
    }


def _list_json(book: SigningKeyStore, rollout: RolloutProgress, behind: list[str]) -> JsonObject:
    return {
        "version": book.version,
        "announced": book.announced,
        "agents": len(rollout.versions),
        "confirmed": len(rollout.versions) - len(behind),
        "not_confirmed": behind,
        "keys": [_key_json(entry) for entry in book.entries],
    }


def _key_json(entry: KeyEntry) -> JsonObject:
    return {
        "id": entry.id,
        "state": entry.state,
        "created_at": iso(entry.created_at),
        "revoked_at": iso(entry.revoked_at),
        "public": entry.public,
    }


def _table(entries: tuple[KeyEntry, ...], confirmed: int, agents: int) -> Table:
    title = f"{counted(len(entries), 'key')}; this list is confirmed by {confirmed} of {counted(agents, 'agent')}"
    table = Table(Column("id", min_width=16), "state", "created (UTC)", "revoked (UTC)", title=title)
    for entry in entries:
        revoked = f"{entry.revoked_at:%Y-%m-%d %H:%M}" if entry.revoked_at else ""
        table.add_row(entry.id, entry.state, f"{entry.created_at:%Y-%m-%d %H:%M}", revoked)
    return table
