"""/commands: the list, and one command with its timeline."""

from starlette.responses import Response
from starlette.routing import Route

from broker.command_types import known_command_types
from broker.contract.states import CommandState, Outcome
from broker.fleet.models import CommandFilter, CommandView, PageOf
from broker.page.lists import address_with, chosen, gathered
from broker.page.routing import Pages, Visit

__all__ = [
    "commands_routes",
    "some_commands",
]


_PAGE = 50


def commands_routes(pages: Pages) -> list[Route]:
    """Return the routes of commands."""
    return [pages.shown("/commands", _commands), pages.shown("/commands/{id}", _command)]


def some_commands(visit: Visit, which: CommandFilter) -> tuple[list[CommandView], str | None]:
    """Return a page of commands after the cursor in the query, and the address of the next page."""

    def read(cursor: str | None, limit: int) -> PageOf[CommandView]:
        return visit.fleet.commands(which, cursor=cursor, limit=limit)

    commands, cursor = gathered(read, visit.asked("cursor") or None, _PAGE)
    return commands, cursor and address_with(visit.request.url, cursor=cursor)


def _commands(visit: Visit) -> Response:
    which = CommandFilter(
        visit.asked("agent") or None,
        visit.asked("type") or None,
        chosen(CommandState, visit.asked("state")),
        chosen(Outcome, visit.asked("outcome")),
    )
    commands, following = some_commands(visit, which)
    types, _ = known_command_types()
    choices = {"types": list(types), "states": CommandState, "outcomes": Outcome}
    is_first = not visit.asked("cursor")
    return visit.page(
        "commands.html", which=which, commands=commands, following=following, is_first=is_first, **choices
    )


def _command(visit: Visit) -> Response:
    command_id = visit.request.path_params["id"]
    command, timeline = visit.fleet.command(command_id), visit.fleet.timeline(command_id)
    return visit.page("command.html", command=command, timeline=timeline, result=command.result or {})
