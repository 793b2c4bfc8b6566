"""get-agent-configuration: the configuration that the agent runs with, secrets masked, with its SHA-256."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from broker.contract.commands.get_agent_configuration import GetAgentConfiguration, GetAgentConfigurationData
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.handlers.base import Context, Handler, Interruption, Result

__all__ = ["HANDLER", "mask_secrets"]

_SECRET_KEY = re.compile(r"pass(word|wd|phrase)?|secret|token|credential|api_?key|private", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^@\s]*@")
_MASK = "********"


def mask_secrets(value: Any, key: str = "") -> Any:
    """Return `value` with secrets replaced: whatever stands under a telling key, and passwords inside URLs."""
    if isinstance(value, Mapping):
        return {name: mask_secrets(item, str(name)) for name, item in value.items()}
    if _SECRET_KEY.search(key) and value:
        return _MASK
    if isinstance(value, list | tuple):
        return [mask_secrets(item) for item in value]
    return _URL_PASSWORD.sub(rf"\1{_MASK}@", value) if isinstance(value, str) else value


def _execute(command: Command, parameters: GetAgentConfiguration, context: Context) -> Result:
    whole: Mapping[str, Any] = msgspec.to_builtins(context.config)
    section = parameters.section
    if section is not None and section not in whole:
        names = ", ".join(sorted(whole))
        return Result(f"There is no section {section!r}; the sections are: {names}.", code=ErrorCode.INVALID)
    shown = whole if section is None else {section: whole[section]}
    digest = hashlib.sha256(msgspec.json.encode(shown, order="sorted")).hexdigest()
    return Result(
        "The configuration is in the data, with secrets masked.",
        GetAgentConfigurationData(mask_secrets(shown), digest),
    )


HANDLER = Handler("get-agent-configuration", Interruption.RERUN, GetAgentConfiguration, _execute)
