"""What is refused before a command is added to the ledger: what its agents would refuse."""

from collections.abc import Sequence
from dataclasses import fields

from broker.command_types import known_command_types, parameters_of
from broker.contract.commands import InvalidParameters, parse_parameters
from broker.errors import InvalidArgument
from broker.ledger.agents import AgentRow
from broker.ledger.enqueue import CommandRequest
from broker.suggestions import did_you_mean
from broker.text import some_of

__all__ = [
    "UnsupportedType",
    "check_parameters",
    "check_supported",
]


class UnsupportedType(InvalidArgument):
    """An agent has no handler for a command type, as its last status shows."""

    code = "unsupported_type"


def check_supported(command_type: str, agents: Sequence[str], rows: Sequence[AgentRow]) -> tuple[str, ...]:
    """Raise UnsupportedType if the last status of an agent does not have the type; return warnings.

    `rows` are those of the `agents` that the ledger knows. A type that is unknown here, for agents of which some have
    not reported what they support, is only warned of: they may support it.
    """
    supported = {row.name: row.status.supported_types for row in rows if row.status and row.status.supported_types}
    without = [name for name, names in supported.items() if command_type not in names]
    if without:
        verb = "does" if len(without) == 1 else "do"
        raise UnsupportedType(
            f"{some_of(without)} {verb} not support {command_type[:80]!r}.{_similar(command_type, supported)} "
            "`acm types` lists the types, `acm agents show NAME` those of an agent; --force sends it anyway."
        )
    if parameters_of(command_type) is None and len(supported) < len(agents):
        similar = _similar(command_type, supported)
        return (f"Unknown command type {command_type[:80]!r}, sent anyway: the agent may support it.{similar}",)
    return ()


def _similar(command_type: str, supported: dict[str, tuple[str, ...]]) -> str:
    known, _ = known_command_types()
    return did_you_mean(command_type, {*known, *(name for names in supported.values() for name in names)})


def check_parameters(request: CommandRequest) -> None:
    """Raise InvalidParameters for what the agent would refuse, if the type is known here."""
    shape = parameters_of(request.command_type)
    if shape is None:
        return
    try:
        parse_parameters(request.command_type, shape, request.parameters)
    except InvalidParameters as error:
        known = [field.name for field in fields(shape)]
        unknown = [name for name in request.parameters if name not in known]
        similar = did_you_mean(unknown[0], known) if unknown else ""
        raise InvalidParameters(
            f"{error}{similar} `acm types {request.command_type}` explains each parameter.", code=error.code
        ) from error
