"""What a shell completes: agents, command types, parameters, and the ids of the newest commands and operations."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from broker.errors import CodedError

if TYPE_CHECKING:
    from broker.cli.session import Session
    from broker.fleet.port import Fleet

__all__ = [
    "complete_agents",
    "complete_blobs",
    "complete_commands",
    "complete_contexts",
    "complete_groups",
    "complete_operations",
    "complete_types",
    "complete_words",
]


_MOST_IDS = 100


def complete_agents(context: typer.Context, incomplete: str) -> list[str]:
    """Return the agents of the ledger; none if it cannot be read."""
    return _of_fleet(context, incomplete, lambda fleet: _agents(fleet, incomplete))


def complete_commands(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of the newest commands and operations."""
    return _of_fleet(context, incomplete, lambda fleet: [*_commands(fleet), *_operations(fleet)])


def complete_contexts(incomplete: str) -> list[str]:
    """Return the contexts of this user; none if they cannot be read."""
    from broker.app.contexts import contexts_file

    try:
        return _beginning(contexts_file().read().contexts, incomplete)
    except CodedError:
        return []


def complete_operations(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of the newest operations."""
    return _of_fleet(context, incomplete, _operations)


def complete_groups(context: typer.Context, incomplete: str) -> list[str]:
    """Return the groups of agents."""
    return _of_fleet(context, incomplete, lambda fleet: [group.name for group in fleet.groups()])


def complete_blobs(context: typer.Context, incomplete: str) -> list[str]:
    """Return the SHA-256 of the stored files."""
    return _of_session(
        context, incomplete, lambda session: [blob.sha256 for blob in session.blobs.blobs(limit=_MOST_IDS).items]
    )


def complete_types(incomplete: str) -> list[str]:
    """Return the command types that are known here."""
    from broker.command_types import known_command_types

    return _beginning(known_command_types()[0], incomplete)


def complete_words(context: typer.Context, incomplete: str) -> list[str]:
    """Return what may follow in `acm send`: an agent, a command type, or the type's parameters that are not given."""
    words = list(context.params.get("words") or ())
    if not (context.params.get("group") or context.params.get("everyone")):
        if not words:
            return complete_agents(context, incomplete)
        words.pop(0)
    return _parameters(words, incomplete) if words else complete_types(incomplete)


def _parameters(words: list[str], incomplete: str) -> list[str]:
    from dataclasses import fields

    from broker.command_types import parameters_of

    shape = parameters_of(words[0])
    given = {word.partition("=")[0] for word in words[1:]}
    names = [] if shape is None else [member.name for member in fields(shape)]
    return _beginning((f"{name}=" for name in names if name not in given), incomplete)


def _agents(fleet: "Fleet", incomplete: str) -> list[str]:
    from broker.fleet.models import AgentFilter
    from broker.fleet.pages import read_pages

    which = AgentFilter(name=f"{incomplete}*")
    return [it.name for it in read_pages(lambda cursor, count: fleet.agents(which, cursor=cursor, limit=count))]


def _commands(fleet: "Fleet") -> list[str]:
    from broker.fleet.models import CommandFilter

    return [command.id for command in fleet.commands(CommandFilter(), limit=_MOST_IDS).items]


def _operations(fleet: "Fleet") -> list[str]:
    return [operation.id for operation in fleet.operations(limit=_MOST_IDS).items]


def _of_fleet(context: typer.Context, incomplete: str, read: "Callable[[Fleet], list[str]]") -> list[str]:
    return _of_session(context, incomplete, lambda session: read(session.fleet))


def _of_session(context: typer.Context, incomplete: str, read: "Callable[[Session], list[str]]") -> list[str]:
    from broker.cli.session import completing_session

    try:
        with completing_session(context.params) as session:
            return _beginning(read(session), incomplete)
    except CodedError:
        return []  # a shell would print the sentence into the line that its user writes


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
