"""/send: a command in three steps: fill in, look at what would happen, send."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import msgspec
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.api.changes import Wanted
from broker.command_types import known_command_types, parameters_of, schema_of
from broker.durations import parse_duration
from broker.errors import BrokerError, InvalidArgument
from broker.fleet.models import Role, SendRequest, Sent
from broker.page.parameters import PREFIX, ParameterField, fields_for, filled_in
from broker.page.routing import Form, Pages, Visit

__all__ = [
    "send_routes",
]


_SHOWN_AGENTS = 100
_NONE: Mapping[str, str] = MappingProxyType({})
_MASKED = "•••"
_ASKED = ("type", "target", "agents", "group", "expires", "timeout")


def send_routes(pages: Pages) -> list[Route]:
    """Return the routes of sending."""
    return [
        pages.shown("/send", _show, Role.OPERATOR),
        pages.sent("/send/check", _check, Role.OPERATOR),
        pages.sent("/send", _send, Role.OPERATOR),
        pages.sent("/send/change", _change, Role.OPERATOR),
    ]


def _show(visit: Visit) -> Response:
    return _form(visit, visit.request.query_params, visit.asked("type"))


def _change(visit: Visit) -> Response:
    """Show the form again, as it was filled in."""
    return _form(visit, visit.form, visit.form.get("type", ""), status=HTTPStatus.OK)


def _check(visit: Visit) -> Response:
    """Do everything but send, and ask whether to."""
    command_type = visit.form.get("type", "")
    fields = fields_for(command_type)
    filled = filled_in(fields, visit.form)
    if filled.problems:
        return _form(visit, visit.form, command_type, problems=filled.problems)
    try:
        request = _request(visit.form, command_type, filled.parameters)
        sent = visit.fleet.send(replace(request, dry_run=True))
    except BrokerError as error:
        return _form(visit, visit.form, command_type, problem=str(error))
    return _confirm(visit, request, fields, sent, str(uuid4()))


def _send(visit: Visit) -> Response:
    """Send it, if it is still for the agents that were shown; a repeat with the same key sends nothing."""
    command_type = visit.form.get("type", "")
    fields = fields_for(command_type)
    filled = filled_in(fields, visit.form)
    key = visit.form.get("key", "")[:255]
    try:
        request = _request(visit.form, command_type, filled.parameters)
        sent = visit.fleet.send(replace(request, dry_run=True))
        if not key or filled.problems or _digest(sent) != visit.form.get("agents_digest"):
            return _confirm(visit, request, fields, sent, key or str(uuid4()), has_changed=True)
        return _to_result(_sent(visit, request, key))
    except BrokerError as error:
        return _form(visit, visit.form, command_type, problem=str(error))


def _sent(visit: Visit, request: SendRequest, key: str) -> Any:
    body = msgspec.json.encode(request)
    target = ",".join(request.agents) or (f"group {request.group}" if request.group else "all agents")
    change = Wanted(visit.request, visit.who, key, f"send {request.type}", target, body)
    answer = visit.parts.requests.change(change, lambda fleet: fleet.send(request), HTTPStatus.CREATED)
    return msgspec.json.decode(answer.body)


def _to_result(sent: Any) -> Response:
    command, operation = sent["command"], sent["operation"]
    path = f"/commands/{command['id']}" if command else f"/operations/{operation['id']}"
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


def _request(form: Form, command_type: str, parameters: Any) -> SendRequest:
    """Return what a form asks for. Raises InvalidArgument."""
    target = form.get("target", "")
    names = tuple(form.get("agents", "").replace(",", " ").split())
    if target == "agents" and not names:
        raise InvalidArgument("Name at least one agent, or choose a group or all agents.", code="no_agents")
    if target == "group" and not form.get("group"):
        raise InvalidArgument("Choose a group.", code="no_group")
    return SendRequest(
        command_type,
        parameters,
        agents=names if target == "agents" else (),
        group=form["group"] if target == "group" else None,
        all=target == "all",
        expires_in_s=_seconds(form.get("expires", "")),
        timeout_s=_seconds(form.get("timeout", "")),
    )


def _seconds(text: str) -> float | None:
    return parse_duration(text.strip()) if text.strip() else None


def _form(
    visit: Visit,
    form: Form,
    command_type: str,
    *,
    problem: str | None = None,
    problems: Mapping[str, str] = _NONE,
    status: HTTPStatus | None = None,
) -> Response:
    types, _ = known_command_types()
    shape = parameters_of(command_type)
    is_refused = problem is not None or bool(problems)
    return visit.page(
        "send.html",
        http_status=status or (HTTPStatus.BAD_REQUEST if is_refused else HTTPStatus.OK),
        form=form,
        type=command_type if command_type in types else "",
        types=[name for name, it in types.items() if not it.signed_only],
        description="" if shape is None else " ".join(schema_of(shape).get("description", "").split()),
        fields=fields_for(command_type),
        groups=visit.listings.group_sizes(),
        problem=problem,
        problems=problems,
    )


def _confirm(
    visit: Visit,
    request: SendRequest,
    fields: tuple[ParameterField, ...],
    sent: Sent,
    key: str,
    *,
    has_changed: bool = False,
) -> Response:
    secrets = {it.name for it in fields if it.kind == "secret"}
    parameters = {name: _MASKED if name in secrets else value for name, value in request.parameters.items()}
    names = (*_ASKED, *(PREFIX + it.name for it in fields))
    return visit.page(
        "send_check.html",
        wanted=request,
        sent=sent,
        shown=_SHOWN_AGENTS,
        parameters=parameters,
        kept={name: visit.form[name] for name in names if name in visit.form},
        key=key,
        digest=_digest(sent),
        has_changed=has_changed,
    )


def _digest(sent: Sent) -> str:
    """Return what tells the agents of two dry runs apart."""
    return hashlib.sha256("\n".join(sent.agents).encode()).hexdigest()
