"""The command types: one module each, with a typed dataclass of parameters and one of data, and the table of them."""

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
from broker.contract.commands.fetch_config import FetchConfig, FetchConfigData
from broker.contract.commands.get_agent_configuration import GetAgentConfiguration, GetAgentConfigurationData
from broker.contract.commands.get_audit_journal import GetAuditJournal, GetAuditJournalData
from broker.contract.commands.restart_agent import RestartAgent, RestartAgentData
from broker.contract.commands.set_group import SetGroup, SetGroupData
from broker.contract.commands.start_agent import StartAgent, StartAgentData
from broker.contract.commands.stop_agent import StopAgent, StopAgentData
from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys, UpdateSigningKeysData
from broker.contract.commands.upgrade_agent import UpgradeAgent, UpgradeAgentData
from broker.contract.messages import Command, JsonObject
from broker.contract.secrets import is_secret_name, masked_values, secret_names
from broker.errors import BrokerError

__all__ = [
    "COMMAND_TYPES",
    "CommandType",
    "InvalidParameters",
    "is_secret",
    "mask_secret_parameters",
    "parse_parameters",
]


@dataclass(frozen=True)
class CommandType:
    """The dataclasses of a command's parameters and of its result's data.

    `signed_only`: no agent takes it unsigned, not even one that accepts unsigned commands. `on_arrival`: it takes
    effect when it arrives, so no cancel and no expiry after that changes anything; its result says what it did.
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
        "fetch-config": CommandType(FetchConfig, FetchConfigData),
        "get-agent-configuration": CommandType(GetAgentConfiguration, GetAgentConfigurationData),
        "get-audit-journal": CommandType(GetAuditJournal, GetAuditJournalData),
        "restart-agent": CommandType(RestartAgent, RestartAgentData),
        "set-group": CommandType(SetGroup, SetGroupData),
        "start-agent": CommandType(StartAgent, StartAgentData),
        "stop-agent": CommandType(StopAgent, StopAgentData),
        UPDATE_SIGNING_KEYS: CommandType(UpdateSigningKeys, UpdateSigningKeysData, signed_only=True, on_arrival=True),
        "upgrade-agent": CommandType(UpgradeAgent, UpgradeAgentData),
    }
)
# What the seed's forms put around every command's parameters, whatever its type.
_FOREIGN_WRAPPER = frozenset({"data", "error", "extra_args", "status"})


class InvalidParameters(BrokerError):
    """A command's parameters are not those of its type."""

    code = "invalid_parameters"


def parse_parameters(command_type: str, shape: type, parameters: JsonObject, *, foreign_form: bool = False) -> Any:
    """Return the parameters as the dataclass `shape`; types are not coerced.

    `foreign_form` says that the command came in a form of the seed, whose wrapper keys are then ignored.
    Raises InvalidParameters for a type outside the table, or a parameter unknown, missing or of a wrong type.
    """
    known, required = _members(shape)
    ignored = _FOREIGN_WRAPPER if foreign_form else frozenset()
    given = {name: value for name, value in parameters.items() if name in known or name not in ignored}
    _refuse_unknown(command_type, [name for name in given if name not in known], known)
    _refuse_missing(command_type, [name for name in required if name not in given], known)
    try:
        return msgspec.convert(given, shape, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidParameters(f"The parameters of {command_type} are wrong: {error}.") from error


def mask_secret_parameters(command: Command, document: Any, shape: type | None = None) -> Any:
    """Return the JSON `document`, which tells of this command, with the command's secret parameters masked.

    Secret is what its type marks as SECRET and what has a telling name. `shape` is the dataclass of the parameters, for
    a type outside the table.
    """
    secrets = {
        value
        for name, value in command.parameters.items()
        if isinstance(value, str) and is_secret(command.type, name, shape)
    }
    return masked_values(document, secrets) if secrets else document


def is_secret(command_type: str, name: str, shape: type | None = None) -> bool:
    """Whether a parameter of this name is secret in a command of this type."""
    kind = COMMAND_TYPES.get(command_type)
    known = shape or (kind.parameters if kind else None)
    return is_secret_name(name) or (known is not None and name in secret_names(known))


def _refuse_unknown(command_type: str, unknown: list[str], known: tuple[str, ...]) -> None:
    if unknown:
        takes = _listing(known) if known else "no parameters"
        raise InvalidParameters(f"{command_type} has no parameter {unknown[0][:80]!r}; it takes {takes}.")


def _refuse_missing(command_type: str, missing: list[str], known: tuple[str, ...]) -> None:
    if missing:
        raise InvalidParameters(f"{command_type} needs the parameter {missing[0]!r}; it takes {_listing(known)}.")


@cache
def _members(shape: type) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a dataclass's members, and of those that have no default."""
    members = fields(shape)
    required = (field for field in members if field.default is MISSING and field.default_factory is MISSING)
    return tuple(field.name for field in members), tuple(field.name for field in required)


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
