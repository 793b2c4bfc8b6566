"""The protocol of Wazuh 4.x between agent and script: one JSON object a line, on the script's stdin and stdout.

The agent writes `add`; a script that keeps keys answers `check_keys` and receives `continue` or `abort`; a script
without keys just ends. Later, the agent runs the script again with `delete`. What Wazuh's execd tolerates is tolerated:
a script that prints anything else first receives `continue`, and the name of its executable is its key.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import msgspec

from broker.contract.messages import JsonObject

__all__ = [
    "Request",
    "read_keys",
    "write_line",
]


_MAX_KEYS = 16
_MAX_KEY_LENGTH = 1024


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
    keys: list[str]


class _CheckKeys(msgspec.Struct):
    command: Literal["check_keys"]
    parameters: _Parameters


def write_line(message: JsonObject, command: Literal["add", "continue", "abort", "delete"]) -> bytes:
    """Return the line that the script reads, its members in the order in which Wazuh writes them."""
    ordered = {"version": message["version"], "origin": message["origin"], "command": command}
    return msgspec.json.encode({**ordered, "parameters": message["parameters"]}) + b"\n"


def read_keys(line: bytes) -> tuple[str, ...] | None:
    """Return the keys that a script names in its `check_keys`; None for any other line.

    Control characters are escaped; more than 16 keys, or keys of more than 1024 characters, become one: their hash.
    """
    try:
        named = msgspec.json.decode(line, type=_CheckKeys).parameters.keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    keys = tuple(key if key.isprintable() else key.encode("unicode_escape").decode() for key in named if key)
    if len(keys) > _MAX_KEYS or max(map(len, keys), default=0) > _MAX_KEY_LENGTH:
        digest = hashlib.sha256(msgspec.json.encode(keys)).hexdigest()
        return (f"{len(keys)} keys with the SHA-256 {digest}",)
    return keys
