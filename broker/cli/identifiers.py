"""Ids as users write them: a command or an operation by the beginning of its id."""

from broker.errors import LedgerError
from broker.fleet.port import Fleet
from broker.suggestions import only_beginning_with

__all__ = [
    "find_command_id",
    "find_operation_id",
    "names_operation",
]


class OtherKindOfId(LedgerError):
    """The id of an operation was given for a command, or that of a command for an operation."""

    code = "other_kind_of_id"


def find_command_id(fleet: Fleet, given: str) -> str:
    """Return the id of the only command whose id begins so, or the text itself if it may be the id of another system.

    Raises AmbiguousId, and OtherKindOfId for the id of an operation.
    """
    ids = fleet.find_ids(given)
    if not ids.commands and ids.operations:
        raise OtherKindOfId(
            f"{given} is an operation, not a command: use `acm operation show` or `acm operation cancel`.",
            code="is_an_operation",
        )
    return only_beginning_with(given, ids.commands) or given


def find_operation_id(fleet: Fleet, given: str) -> str:
    """Return the id of the only operation whose id begins so, or the text itself.

    Raises AmbiguousId, and OtherKindOfId for the id of a command.
    """
    ids = fleet.find_ids(given)
    if not ids.operations and ids.commands:
        raise OtherKindOfId(
            f"{given} is a command, not an operation: use `acm show` or `acm cancel`.", code="is_a_command"
        )
    return only_beginning_with(given, ids.operations) or given


def names_operation(fleet: Fleet, given: str) -> bool:
    """Return whether no command has an id that begins so, but an operation."""
    ids = fleet.find_ids(given)
    return not ids.commands and bool(ids.operations)
