"""The protocol of Wazuh 4.x between agent and script: one JSON object a line, on the script's stdin and stdout.

The agent writes `add`; a script that keeps keys answers `check_keys` and receives `continue` or `abort`; a script
without keys just ends. Later, the agent runs the script again with `delete`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from broker.contract.messages import JsonObject
from consumer.errors import ActiveResponseError

__all__ = [
    "Request",
    "read_keys",
    "write_line",
]


_MAX_SHOWN = 80
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


@dataclass(frozen=True)
class Request:
    """A command's request to a script. `timeout_s` is None for the allow-list's timeout, 0 for a permanent effect."""

    command_id: str
    script: str
    alert: JsonObject
    extra_args: tuple[str, ...]
    timeout_s: float | None
    requested_by: str

    def message(self, executable: str) -> JsonObject:
        """Return the message for the script, without its `command`."""
        parameters = {
            "extra_args": list(self.extra_args),
            "alert": self.alert,
            "program": f"active-response/bin/{executable}",
        }
        return {"version": 1, "origin": {"name": self.requested_by, "module": "wazuh-execd"}, "parameters": parameters}


class _Parameters(msgspec.Struct):
    keys: Annotated[list[_Key], msgspec.Meta(max_length=16)]


class _CheckKeys(msgspec.Struct):
    command: Literal["check_keys"]
    parameters: _Parameters


def write_line(message: JsonObject, command: Literal["add", "continue", "abort", "delete"]) -> bytes:
    """Return the line that the script reads, its members in the order in which Wazuh writes them."""
    ordered = {"version": message["version"], "origin": message["origin"], "command": command}
    return msgspec.json.encode({**ordered, "parameters": message["parameters"]}) + b"\n"


def read_keys(line: bytes) -> tuple[str, ...]:
    """Return the keys that a script names in its `check_keys`; raises ActiveResponseError for any other line."""
    try:
        keys = msgspec.json.decode(line, type=_CheckKeys).parameters.keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        shown = line[:_MAX_SHOWN].decode(errors="replace")
        raise ActiveResponseError(
            f"it answered {shown!r}, which is not a check_keys message.", code="not_check_keys"
        ) from error
    if not all(key.isprintable() for key in keys):
        raise ActiveResponseError("it named a key with unprintable characters.", code="unprintable_key")
    return tuple(keys)
