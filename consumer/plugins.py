"""Handlers of other packages, by entry points (packaging.python.org, "Entry points specification")."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from consumer.errors import HandlerTableError
from consumer.handler import Handler
from consumer.handlers.built_in import added_handlers

__all__ = [
    "HANDLERS_GROUP",
    "NO_PLUG_INS",
    "PlugIns",
    "load_plug_ins",
]


HANDLERS_GROUP = "agent_command_manager.handlers"


@dataclass(frozen=True)
class PlugIns:
    """The handlers of installed packages, and why some cannot be used (sentences), or None."""

    handlers: tuple[Handler[Any], ...] = ()
    problem: str | None = None


NO_PLUG_INS = PlugIns()


# design.md: "A broken plug-in is skipped, not fatal"
def load_plug_ins() -> PlugIns:
    """Import every `Handler` that an entry point of HANDLERS_GROUP names; the entry point's name is the command type.

    A handler that is broken or whose type is taken is skipped and reported, so that the agent stays reachable.
    """
    handlers: list[Handler[Any]] = []
    problems: list[str] = []
    for entry in sorted(entry_points(group=HANDLERS_GROUP), key=lambda entry: (entry.name, entry.value)):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
        try:
            handler = _load(entry)
            added_handlers([*handlers, handler])
        except HandlerTableError as error:
            problems.append(f"The plug-in {entry.name} of {package} is not used: {error}")
        else:
            handlers.append(handler)
    return PlugIns(tuple(handlers), " ".join(problems) or None)


def _load(entry: EntryPoint) -> Handler[Any]:
    try:
        handler = entry.load()
    except (Exception, SystemExit) as error:
        raise HandlerTableError(
            f"{entry.value} cannot be imported: {type(error).__name__}: {error}.", code="import_failed"
        ) from error
    if not isinstance(handler, Handler):
        raise HandlerTableError(f"{entry.value} is not a Handler.", code="not_a_handler")
    if handler.command_type != entry.name:
        raise HandlerTableError(
            f"{entry.value} handles {handler.command_type!r}; the entry point must have that name.", code="wrong_type"
        )
    return handler
