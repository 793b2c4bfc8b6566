"""/audit-log: what principals have changed, and /ids/ID, which leads to the command or operation that came of it."""

from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.access.audit_log import AuditLogFilter
from broker.access.models import LoggedAction
from broker.errors import InvalidArgument
from broker.fleet.models import PageOf, Role
from broker.page.lists import address_with, gathered
from broker.page.routing import Pages, Visit

__all__ = [
    "audit_log_routes",
]


_PAGE = 50
_OF_COMMANDS = ("send", "cancel", "abandon", "retry")


def audit_log_routes(pages: Pages) -> list[Route]:
    """Return the routes of the audit log."""
    return [
        pages.shown("/audit-log", _audit_log, Role.ADMIN, everywhere=True),
        pages.shown("/ids/{id}", _id),
    ]


def _audit_log(visit: Visit) -> Response:
    until = visit.asked("until")
    which = AuditLogFilter(visit.asked("principal"), visit.asked("text"), _end_of_day(until))

    def read(cursor: str | None, limit: int) -> PageOf[LoggedAction]:
        return visit.parts.audit_log.page(cursor, limit, which)

    entries, cursor = gathered(read, visit.asked("cursor") or None, _PAGE)
    shown = [(it, _path_of(it)) for it in entries]
    following = cursor and address_with(visit.request.url, cursor=cursor)
    newest = str(visit.request.url.remove_query_params("cursor").query)
    is_first = not visit.asked("cursor")
    return visit.page(
        "audit_log.html", which=which, until=until, entries=shown, following=following, newest=newest, is_first=is_first
    )


def _id(visit: Visit) -> Response:
    """Lead to what has this id; what is none of a command is that of an operation, or of nothing."""
    wanted = visit.request.path_params["id"]
    kind = "commands" if wanted in visit.fleet.find_ids(wanted).commands else "operations"
    return RedirectResponse(f"/{kind}/{quote(wanted, safe='')}", HTTPStatus.SEE_OTHER)


def _path_of(entry: LoggedAction) -> str | None:
    """Return where to see what came of an action; None where there is nothing to see."""
    subject, target = quote(entry.subject, safe=""), quote(entry.target, safe="")
    if entry.action.partition(" ")[0] in _OF_COMMANDS:
        return f"/ids/{subject or target}"
    paths = {
        "revoke enrolment": f"/enrolments/{subject}",
        "revoke agent": f"/enrolments?name={target}",
        "create enrolment token": f"/enrolment-tokens?name={target}",
    }
    return paths.get(entry.action)


def _end_of_day(text: str) -> datetime | None:
    """Return the end of a day, in UTC; None for no text. Raises InvalidArgument."""
    try:
        day = date.fromisoformat(text) if text else None
        return None if day is None else datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"until: {text[:80]!r} is not a day, such as 2026-01-31.") from None
