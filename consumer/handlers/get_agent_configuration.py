"""get-agent-configuration: the agent's configuration and the centralized one, with secrets masked."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from broker.contract.commands.get_agent_configuration import GetAgentConfiguration, GetAgentConfigurationData
from broker.contract.messages import Command, JsonObject
from broker.contract.states import ErrorCode
from broker.text import encodable
from consumer.configuration.generations import Generations, Record
from consumer.configuration.masked_files import MAX_FILES, shown_files
from consumer.errors import CentralizedConfigurationError
from consumer.handler import Context, Handler, Interruption, Result
from consumer.settings import AgentConfig, Secret

__all__ = [
    "handler",
]


_CENTRALIZED = "centralized"


def handler(config: AgentConfig, origins: Mapping[str, str]) -> Handler[GetAgentConfiguration]:
    """Return the handler that shows `config`. `origins` names the source of each value that is not a default."""
    execute = partial(_execute, config, origins)
    return Handler("get-agent-configuration", Interruption.RERUN, GetAgentConfiguration, execute)


def _execute(
    config: AgentConfig,
    origins: Mapping[str, str],
    command: Command,
    parameters: GetAgentConfiguration,
    context: Context,
) -> Result:
    generations = Generations(config.configuration_root)
    section, whole = parameters.section, _shown(config)
    try:
        record = generations.record(generations.current)
        if section == _CENTRALIZED:
            return _centralized(generations, record)
        if section is not None and section not in whole:
            names = ", ".join(sorted([*whole, _CENTRALIZED]))
            return Result(f"Unknown section {section!r}; the sections are: {names}.", code=ErrorCode.INVALID)
        data = _data(whole if section is None else {section: whole[section]})
        if parameters.effective:
            data = replace(data, sources=_sources(data.configuration, _defaults(), origins))
        return Result("The configuration is in the data, with secrets masked.", _with(data, generations, record))
    except OSError as error:
        raise CentralizedConfigurationError(
            f"{error.filename} cannot be read: {error.strerror}.", code="configuration_unreadable"
        ) from error


def _shown(config: AgentConfig) -> JsonObject:
    from consumer.system.masking import mask_values  # the formats' parsers are 1 MB

    shown: JsonObject = mask_values(msgspec.to_builtins(config, enc_hook=lambda secret: secret.masked))
    return shown


def _defaults() -> JsonObject:
    return _shown(AgentConfig(agent="", broker=Secret(""), state=""))


def _data(shown: JsonObject) -> GetAgentConfigurationData:
    return GetAgentConfigurationData(shown, hashlib.sha256(msgspec.json.encode(shown, order="sorted")).hexdigest())


def _with(
    data: GetAgentConfigurationData, generations: Generations, record: Record | None
) -> GetAgentConfigurationData:
    if record is None:
        return data
    altered = tuple(map(encodable, generations.altered(record)[:MAX_FILES]))
    return replace(data, applied=record.summary(), altered=altered)


def _centralized(generations: Generations, record: Record | None) -> Result:
    if record is None and (generations.target is not None or generations.is_blocked):
        message = f"{generations.link} does not lead to a generation of this agent; apply a configuration again."
        return Result(message, code=ErrorCode.FAILED)
    if record is None:
        return Result("No centralized configuration is active.", _data({}))
    data = replace(_with(_data({}), generations, record), files=shown_files(generations, record))
    altered = f"; altered since: {', '.join(data.altered)[:200]}" if data.altered else ""
    return Result(f"Generation {record.name} of the centralized configuration is active{altered}.", data)


def _sources(
    shown: Mapping[str, Any], defaults: Mapping[str, Any], origins: Mapping[str, str], prefix: str = ""
) -> dict[str, str]:
    """Return the source of each value by its dotted name; `program` stands for a program that embeds the agent."""
    sources: dict[str, str] = {}
    for name, value in shown.items():
        dotted, default = f"{prefix}{name}", defaults.get(name)
        if isinstance(value, Mapping):
            sources |= _sources(value, default or {}, origins, f"{dotted}.")
        else:
            sources[dotted] = origins.get(dotted, "default" if value == default else "program")
    return sources
