"""The built-in command types, one module each, with the dataclasses of its parameters and of its result's data."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import Any

import msgspec

from broker.contract.commands.apply_centralized_configuration import (
    ApplyCentralizedConfiguration,
    ApplyCentralizedConfigurationData,
)
from broker.contract.commands.enroll_agent import EnrollAgent, EnrollAgentData
from broker.contract.commands.execute_active_response import ExecuteActiveResponse, ExecuteActiveResponseData
from broker.contract.commands.fetch_config import FETCH_CONFIG, FetchConfig, FetchConfigData
from broker.contract.commands.get_agent_configuration import GetAgentConfiguration, GetAgentConfigurationData
from broker.contract.commands.get_audit_journal import GetAuditJournal, GetAuditJournalData
from broker.contract.commands.restart_agent import RestartAgent, RestartAgentData
from broker.contract.commands.set_group import SetGroup, SetGroupData
from broker.contract.commands.start_agent import StartAgent, StartAgentData
from broker.contract.commands.stop_agent import StopAgent, StopAgentData
from broker.contract.commands.update_authorities import UPDATE_AUTHORITIES, UpdateAuthorities, UpdateAuthoritiesData
from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys, UpdateSigningKeysData
from broker.contract.commands.upgrade_agent import UpgradeAgent, UpgradeAgentData
from broker.contract.messages import Command, JsonObject
from broker.contract.plain_types import wrong_value
from broker.contract.secrets import is_secret_name, masked_values, secret_names
from broker.errors import BrokerError

__all__ = [
    "COMMAND_TYPES",
    "CommandType",
    "InvalidParameters",
    "is_secret",
    "mask_secret_parameters",
    "parse_parameters",
    "secret_values",
]


@dataclass(frozen=True)
class CommandType:
    """The dataclasses of a command's parameters and of its result's data.

    `signed_only`: it is rejected unsigned, even by an agent that accepts unsigned commands. `on_arrival`: it takes
    effect when it arrives, so it cannot be cancelled or expire afterwards; its result reports what it did.
    """

    parameters: type
    data: type
    signed_only: bool = False
    on_arrival: bool = False


COMMAND_TYPES: Mapping[str, CommandType] = MappingProxyType(
    {
        "execute-active-response": CommandType(ExecuteActiveResponse, ExecuteActiveResponseData),
        "apply-centralized-configuration": CommandType(
            ApplyCentralizedConfiguration, ApplyCentralizedConfigurationData
        ),
        "enroll-agent": CommandType(EnrollAgent, EnrollAgentData),
        FETCH_CONFIG: CommandType(FetchConfig, FetchConfigData),
        "get-agent-configuration": CommandType(GetAgentConfiguration, GetAgentConfigurationData),
        "get-audit-journal": CommandType(GetAuditJournal, GetAuditJournalData),
        "restart-agent": CommandType(RestartAgent, RestartAgentData),
        "set-group": CommandType(SetGroup, SetGroupData),
        "start-agent": CommandType(StartAgent, StartAgentData),
        "stop-agent": CommandType(StopAgent, StopAgentData),
        UPDATE_AUTHORITIES: CommandType(UpdateAuthorities, UpdateAuthoritiesData, signed_only=True),
        UPDATE_SIGNING_KEYS: CommandType(UpdateSigningKeys, UpdateSigningKeysData, signed_only=True, on_arrival=True),
        "upgrade-agent": CommandType(UpgradeAgent, UpgradeAgentData),
    }
)
# Members that foreign forms add to the parameters of every command type.
_FOREIGN_WRAPPER = frozenset({"data", "error", "extra_args", "status"})


class InvalidParameters(BrokerError):
    """A command's parameters are not those of its type."""

    code = "invalid_parameters"

    code = "invalid_parameters"


def parse_parameters(command_type: str, shape: type, parameters: JsonObject, *, foreign_form: bool = False) -> Any:
    """Return the parameters as an instance of the dataclass `shape`; types are not coerced.

    `foreign_form`: ignore the members that foreign forms add. Raises InvalidParameters for a parameter that is unknown
    (code `unknown_parameter`), missing (`missing_parameter`) or invalid (`invalid_parameter`).
    """
    known, required = _members(shape)
    ignored = _FOREIGN_WRAPPER if foreign_form else frozenset()
    given = {name: value for name, value in parameters.items() if name in known or name not in ignored}
    _refuse_unknown(command_type, [name for name in given if name not in known], known)
    _refuse_missing(command_type, [name for name in required if name not in given], known)
    try:
        return msgspec.convert(given, shape, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidParameters(
            f"The parameters of {command_type} are wrong: {wrong_value(error, given, shape)}.",
            code="invalid_parameter",
        ) from error


def mask_secret_parameters(command: Command, document: Any, shape: type | None = None) -> Any:
    """Return the JSON `document` with each text masked that is the value of a secret parameter of this command.

    See `is_secret`. `shape` is the dataclass of the parameters, for a type that is not built in.
    """
    secrets = secret_values(command, shape)
    return masked_values(document, secrets) if secrets else document


def secret_values(command: Command, shape: type | None = None) -> set[str]:
    """Return the texts among the values of a command's secret parameters."""
    return {
        value
        for name, value in command.parameters.items()
        if isinstance(value, str) and is_secret(command.type, name, shape)
    }


def is_secret(command_type: str, name: str, shape: type | None = None) -> bool:
    """Return whether a parameter is secret: its type marks it SECRET, or its name suggests it."""
    kind = COMMAND_TYPES.get(command_type)
    known = shape or (kind.parameters if kind else None)
    return is_secret_name(name) or (known is not None and name in secret_names(known))


def _refuse_unknown(command_type: str, unknown: list[str], known: tuple[str, ...]) -> None:
    if unknown:
        takes = _listing(known) if known else "no parameters"
        raise InvalidParameters(
            f"{command_type} has no parameter {unknown[0][:80]!r}; it takes {takes}.", code="unknown_parameter"
        )


def _refuse_missing(command_type: str, missing: list[str], known: tuple[str, ...]) -> None:
    if missing:
        raise InvalidParameters(
            f"{command_type} requires the parameter {missing[0]!r}; it takes {_listing(known)}.",
            code="missing_parameter",
        )


@cache
def _members(shape: type) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a dataclass's members, and of those that have no default."""
    members = fields(shape)
    required = (field for field in members if field.default is MISSING and field.default_factory is MISSING)
    return tuple(field.name for field in members), tuple(field.name for field in required)


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
