"""Reads commands in the JSON forms of other systems, A to F.

A to E have the verb in `command`, F (Wazuh 5) has it in `action`. Missing members are filled in and named in the notes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from broker.contract.commands import COMMAND_TYPES
from broker.contract.messages import Command, JsonObject, Origin
from broker.text import counted

__all__ = [
    "ALIASES",
    "is_foreign_form",
    "read_foreign_form",
    "unknown_field_notes",
]


_UNKNOWN_ORIGIN = "unknown"
_T = TypeVar("_T")
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "restart": "restart-agent",
        "start": "start-agent",
        "stop": "stop-agent",
        "upgradeAgent": "upgrade-agent",
        "applyCentralizedConfiguration": "apply-centralized-configuration",
        "getAgentConfiguration": "get-agent-configuration",
        "active-response": "execute-active-response",
        "executeActiveResponse": "execute-active-response",
        "enrollAgent": "enroll-agent",
        "set-group": "set-group",
        "fetch-config": "fetch-config",
    }
)
_VERBS = frozenset(COMMAND_TYPES) | frozenset(ALIASES) | frozenset(ALIASES.values())
_MAX_UNKNOWN_FIELDS_NAMED = 16
_PARAMETER_NAMES = frozenset({"parameters", "params", "arguments", "args"})


class _Verb(msgspec.Struct):
    name: str | None = None
    type: str | None = None
    status: str | None = None


class _Origin(msgspec.Struct):
    name: str | None = None
    module: str | None = None
    serverName: str | None = None
    moduleName: str | None = None


class _FormAToE(msgspec.Struct):
    command: str | _Verb
    origin: _Origin | None = None
    parameters: dict[str, Any] | None = None
    status: str | None = None
    id: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    timeout_s: float | None = None


class _Action(msgspec.Struct):
    name: str
    version: str | None = None
    args: dict[str, Any] | None = None


class _Target(msgspec.Struct):
    type: str | None = None
    id: str | None = None


class _FormF(msgspec.Struct):
    action: _Action
    document_id: str | None = None
    source: str | None = None
    user: str | None = None
    target: _Target | None = None
    status: str | None = None


@dataclass
class _Notes:
    """Collects the notes on one message: which members were filled in or ignored."""

    lines: list[str] = field(default_factory=list)

    def fill(self, name: str, value: _T | None, default: Callable[[], _T]) -> _T:
        if value is not None:
            return value
        self.lines.append(f"{name} was missing and was filled in")
        return default()

    def unknown_fields(self, item: Any, shape: type[msgspec.Struct], prefix: str = "") -> None:
        if isinstance(item, dict):
            self.lines += unknown_field_notes(item, shape.__struct_fields__, prefix)


def is_foreign_form(item: JsonObject) -> bool:
    """Return whether a JSON object is a command in one of the forms A to F, not in ours."""
    shaped = isinstance(item.get("command"), str | dict) or isinstance(item.get("action"), dict)
    return shaped or ("type" not in item and ("command" in item or "action" in item))


def read_foreign_form(item: JsonObject, received_at: datetime, new_id: Callable[[], str]) -> Command:
    """Return the command in a foreign form; `original` is its JSON as received.

    An unknown verb becomes the command type unchanged. Raises msgspec.ValidationError for a member of a wrong type.
    """
    if isinstance(item.get("command"), str | dict) or "action" not in item:
        return _read_a_to_e(item, received_at, new_id)
    return _read_f(item, received_at, new_id)


def unknown_field_notes(item: JsonObject, known: Iterable[str], prefix: str = "") -> list[str]:
    """Return a note for each unknown field of `item`, for at most 16; one more note counts the rest.

    Raises msgspec.ValidationError if one of them has parameters: without them the command would do something else.
    """
    unknown = sorted(item.keys() - set(known))
    for name in unknown:
        if name in _PARAMETER_NAMES and item[name]:
            raise msgspec.ValidationError(f"Parameters are not expected in this place - at `$.{prefix}{name}`")
    named = unknown[:_MAX_UNKNOWN_FIELDS_NAMED]
    notes = [f"unknown field {(prefix + name)[:80]!r} was ignored" for name in named]
    if len(unknown) > len(named):
        more = counted(len(unknown) - len(named), "more unknown field was", "more unknown fields were")
        notes.append(f"{more} ignored")
    return notes


def _read_a_to_e(item: JsonObject, received_at: datetime, new_id: Callable[[], str]) -> Command:
    form = msgspec.convert(item, _FormAToE, strict=True)
    notes = _Notes()
    command = Command(
        id=notes.fill("id", form.id, new_id),
        type=_command_type(form.command),
        parameters=notes.fill("parameters", form.parameters, dict),
        origin=_origin(form.origin, notes),
        created_at=notes.fill("created_at", form.created_at, lambda: received_at),
        expires_at=form.expires_at,
        timeout_s=form.timeout_s,
        original=item,
    )
    notes.unknown_fields(item, _FormAToE)
    notes.unknown_fields(item["command"], _Verb, "command.")
    notes.unknown_fields(item.get("origin"), _Origin, "origin.")
    return _with_notes(command, notes)


def _read_f(item: JsonObject, received_at: datetime, new_id: Callable[[], str]) -> Command:
    form = msgspec.convert(item, _FormF, strict=True)
    notes = _Notes()
    command = Command(
        id=notes.fill("id", form.document_id, new_id),
        type=ALIASES.get(form.action.name, form.action.name),
        parameters=notes.fill("parameters", form.action.args, dict),
        origin=Origin(
            name=notes.fill("origin.name", form.user, _unknown),
            module=notes.fill("origin.module", form.source, _unknown),
        ),
        created_at=notes.fill("created_at", None, lambda: received_at),
        original=item,
    )
    if form.action.version is not None:
        notes.lines.append("action.version was ignored")
    if form.target is not None:
        notes.lines.append("target was ignored: the topic names the agent")
    notes.unknown_fields(item, _FormF)
    notes.unknown_fields(item["action"], _Action, "action.")
    return _with_notes(command, notes)


def _command_type(verb: str | _Verb) -> str:
    """Return the command type: of `name` and `type` the first that is a known verb, else the first present."""
    verbs = [verb] if isinstance(verb, str) else [found for found in (verb.name, verb.type) if found is not None]
    if not verbs:
        raise msgspec.ValidationError("Expected a verb in `name` or `type` - at `$.command`")
    chosen = next((found for found in verbs if found in _VERBS), verbs[0])
    return ALIASES.get(chosen, chosen)


def _origin(origin: _Origin | None, notes: _Notes) -> Origin:
    if origin is None:
        return notes.fill("origin", None, lambda: Origin(name=_UNKNOWN_ORIGIN, module=_UNKNOWN_ORIGIN))
    name = origin.serverName if origin.name is None else origin.name
    module = origin.moduleName if origin.module is None else origin.module
    return Origin(name=notes.fill("origin.name", name, _unknown), module=notes.fill("origin.module", module, _unknown))


def _unknown() -> str:
    return _UNKNOWN_ORIGIN


def _with_notes(command: Command, notes: _Notes) -> Command:
    return replace(command, notes=tuple(notes.lines))
