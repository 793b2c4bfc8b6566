"""acm keys: the keys that sign messages to agents, and which agents have confirmed them."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from broker.app.credentials import signing_keys_path
from broker.cli.documents import document_of
from broker.cli.session import LEDGER, ConfigOverride, Session, with_session
from broker.console.listing import Column, Listing, Shown, time_column
from broker.console.output import print_text
from broker.contract.messages import JsonObject
from broker.errors import BrokerError
from broker.fleet.key_models import SigningKeyView
from broker.fleet.key_rollout import RolloutProgress, distribute, rollout_of
from broker.ledger.operations import Operation
from broker.signing.key_store import SigningKeyStore, create_signing_keys
from broker.suggestions import only_beginning_with
from broker.text import counted, some_of

__all__ = [
    "AgentsLeftBehind",
    "app",
]


app = typer.Typer(no_args_is_help=True)
KEYS = ConfigOverride(
    "signing_keys",
    typer.Option(
        "--keys",
        metavar="DIR",
        help="Directory of the signing keys (default: signing in the directory of the authority).",
    ),
)


_KEYS = Listing[SigningKeyView](
    "key",
    (
        Column("id", lambda it: it.id),
        Column("state", lambda it: it.state),
        time_column("created", lambda it: it.created_at),
        time_column("revoked", lambda it: it.revoked_at),
        Column("public", lambda it: it.public, Shown.WIDE),
    ),
    name=lambda it: it.id,
    document=document_of,
)


class AgentsLeftBehind(BrokerError):
    """Agents would reject every command, because they have confirmed only the key to revoke."""

    code = "agents_left_behind"


@app.command(epilog="Example: acm keys init --keys /var/lib/acm/signing")
@with_session(KEYS)
def init(session: Session) -> None:
    """Create a directory with one key, for a server without an authority; `acm ca init` creates one, too."""
    path = signing_keys_path(session.config)
    entry = create_signing_keys(path, datetime.now(UTC))
    session.show(
        {"directory": str(path), "id": entry.id},
        f"The signing keys are in {path}, with the key {entry.id}; keep a copy of them in a safe place.",
    )


@app.command("list", epilog="Example: acm keys list --json")
@with_session(KEYS, LEDGER, over_api=True, lists=_KEYS, only_reads=True)
def list_keys(session: Session) -> None:
    """List keys, and how many of the enrolled agents have confirmed the current list."""
    found = session.key_list.signing_keys()
    agents = counted(found.agents, "agent")
    title = f"{counted(len(found.keys), 'key')}, confirmed by {found.confirmed} of {agents}"
    session.printer.show_list(_KEYS, lambda: found.keys, document=document_of(found), title=title)
    if session.printer.for_programs:
        return
    if found.not_confirmed:
        behind = some_of(found.not_confirmed, of=found.agents - found.confirmed)
        print_text(f"acm: Not confirmed by: {behind}.", to_stderr=True)
    if not found.announced:
        print_text(
            "acm: The last change was not distributed: run `acm keys rotate`, which then adds no key.", to_stderr=True
        )


@app.command(epilog="Example: acm keys rotate")
@with_session(KEYS, LEDGER, creates_ledger=True)
def rotate(session: Session) -> None:
    """Add a key that signs together with the others from now on, and distribute the new key list.

    No key is revoked. If an earlier change was not distributed, it is distributed instead, and no key is added.
    """
    keys = session.signing_keys
    above = _rollout(session).newest_reported
    entry = keys.rotate(datetime.now(UTC), above=above) if keys.announced else None
    operation = _distribute(session)
    done = f"{entry.id} signs from now on, together with the others." if entry else "An earlier change was incomplete."
    session.show(
        {"id": entry.id if entry else None, **_distribution_json(keys, operation)},
        f"{done} {_distribution_text(operation)}",
    )


@app.command(epilog="Example: acm keys revoke 3f9c2a7d5b1e8064")
@with_session(KEYS, LEDGER, creates_ledger=True)
def revoke(
    session: Session,
    given_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, or the beginning of it.")],
    leave_behind: Annotated[
        bool,
        typer.Option(
            "--leave-agents-behind",
            help="Revoke it even if agents know no other key. They reject all commands until they renew their "
            "certificate.",
        ),
    ] = False,
) -> None:
    """Revoke a signing key, delete its private key, and distribute the new key list."""
    keys = session.signing_keys
    key_id = only_beginning_with(given_id, (entry.id for entry in keys.entries)) or given_id

    def check(needed: int) -> None:
        left = [] if leave_behind else _rollout(session).behind(needed)
        if left:
            raise AgentsLeftBehind(_refusal(key_id, left))

    entry = keys.revoke(key_id, datetime.now(UTC), above=_rollout(session).newest_reported, check=check)
    operation = _distribute(session)
    session.show(
        {"id": entry.id, **_distribution_json(keys, operation)},
        f"{entry.id} is revoked. {_distribution_text(operation)}",
    )


def _rollout(session: Session) -> RolloutProgress:
    """Return how far the current list has been confirmed."""
    return rollout_of(session.ledger, session.enrolment_store, session.signing_keys.version, datetime.now(UTC))


def _distribute(session: Session) -> Operation | None:
    """Send the current list to the agents that have not confirmed it, and record that.

    The rollout is read after the change, because an agent that enrolled in between received the old list. After a
    crash in between, `announced` is false.
    """
    # design.md: "The list of keys is changed first, then distributed."
    update = session.signing_keys.update
    operation = distribute(session.ledger, _rollout(session), update, session.origin)
    session.signing_keys.mark_announced(update.version)
    return operation


def _refusal(key_id: str, left: list[str]) -> str:
    return (
        f"{counted(len(left), 'agent has', 'agents have')} confirmed only the key {key_id} and would reject all "
        f"commands until the certificate is renewed: {some_of(left)}. Wait for that, or until another key is "
        "confirmed (`acm keys list`). If the key was stolen, use --leave-agents-behind."
    )


def _distribution_text(operation: Operation | None) -> str:
    if operation is None:
        return "No agent needs the new list."
    return f"The new list is sent to {counted(operation.size, 'agent')}: acm operation show {operation.id}"


def _distribution_json(keys: SigningKeyStore, operation: Operation | None) -> JsonObject:
    return {
        "version": keys.version,
        "operation": operation.id if operation else None,
        "agents": operation.size if operation else 0,
    }
