"""The handlers, one a command type, and the one table of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from consumer.errors import HandlerTableError
from consumer.handler import Handler
from consumer.handlers import (
    apply_centralized_configuration,
    enroll_agent,
    execute_active_response,
    fetch_config,
    get_agent_configuration,
    get_audit_journal,
    restart_agent,
    set_group,
    start_agent,
    stop_agent,
    update_signing_keys,
    upgrade_agent,
)

__all__ = [
    "HANDLERS",
    "handler_table",
]


HANDLERS: tuple[Handler[Any], ...] = (
    apply_centralized_configuration.HANDLER,
    enroll_agent.HANDLER,
    execute_active_response.HANDLER,
    fetch_config.HANDLER,
    get_agent_configuration.HANDLER,
    get_audit_journal.HANDLER,
    restart_agent.HANDLER,
    set_group.HANDLER,
    start_agent.HANDLER,
    stop_agent.HANDLER,
    update_signing_keys.HANDLER,
    upgrade_agent.HANDLER,
)


def handler_table(handlers: Iterable[Handler[Any]]) -> Mapping[str, Handler[Any]]:
    """Return the handlers by command type.

    Raises HandlerTableError if two claim the same one, unless the later says that it `replaces` the earlier, and if one
    replaces nothing.
    """
    table: dict[str, Handler[Any]] = {}
    for handler in handlers:
        earlier = table.get(handler.command_type)
        if handler.replaces and earlier is None:
            raise HandlerTableError(f"There is no handler for {handler.command_type!r} to replace.")
        if earlier is not None and (earlier.replaces or not handler.replaces):
            raise HandlerTableError(f"Two handlers claim the command type {handler.command_type!r}; keep one.")
        table[handler.command_type] = handler
    return table
