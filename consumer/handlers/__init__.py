"""The handlers, one a command type, and the one table of them."""

from collections.abc import Iterable, Mapping

from consumer.errors import HandlerTableError
from consumer.handlers import enroll_agent, get_agent_configuration, restart_agent, start_agent, stop_agent
from consumer.handlers.base import Handler

__all__ = ["HANDLERS", "handler_table"]

HANDLERS: tuple[Handler, ...] = (
    enroll_agent.HANDLER,
    get_agent_configuration.HANDLER,
    restart_agent.HANDLER,
    start_agent.HANDLER,
    stop_agent.HANDLER,
)


def handler_table(handlers: Iterable[Handler]) -> Mapping[str, Handler]:
    """Return the handlers by command type; raise HandlerTableError if two claim the same one."""
    table: dict[str, Handler] = {}
    for handler in handlers:
        if handler.command_type in table:
            raise HandlerTableError(f"Two handlers claim the command type {handler.command_type!r}; keep one.")
        table[handler.command_type] = handler
    return table
