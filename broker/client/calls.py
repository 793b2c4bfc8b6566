"""The requests of the API and the shapes of their answers, without any input or output."""

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from types import NoneType
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from broker.client.files import OutgoingFile
from broker.errors import BrokerError
from broker.fleet.explanation import CommandTimeline
from broker.fleet.models import (
    AgentFilter,
    AgentView,
    CancelledCommands,
    CommandFilter,
    CommandView,
    EventFilter,
    ForgetRequest,
    ForgottenAgent,
    IdsFound,
    OperationProgress,
    OperationView,
    PageOf,
    Principal,
    SendRequest,
    Sent,
    ServerView,
)
from broker.text import rfc3339

__all__ = [
    "ATTEMPTS",
    "FIRST_WAIT_S",
    "ApiError",
    "ApiProblem",
    "ApiUnreachable",
    "Call",
    "answer_in",
    "change_call",
    "change_of_command",
    "change_of_operation",
    "for_agent",
    "for_agents",
    "for_command",
    "for_commands",
    "for_events",
    "for_ids",
    "for_operation",
    "for_operations",
    "for_principal",
    "for_servers",
    "for_timeline",
    "given_parameters",
    "is_outage",
    "is_to_repeat",
    "to_forget",
    "to_retry",
    "to_send",
    "unreachable",
]


_Answer = TypeVar("_Answer")
ATTEMPTS = 4
FIRST_WAIT_S = 0.2
_OUTAGES = (502, 503, 504)


class ApiError(BrokerError):
    """A request to the API did not succeed."""

    code = "api_error"


class ApiProblem(ApiError):
    """The API has refused a request: `code` is that of the problem (docs/api.md), `status` its HTTP status.

    `kind` is the code of the class of errors that the problem belongs to; its exit code is that of this class.
    """

    code = "api_problem"

    def __init__(self, message: str, *, code: str | None = None, status: int = 0, kind: str = "") -> None:
        super().__init__(message, code=code)
        self.status = status
        self.kind = kind


class ApiUnreachable(ApiError):
    """The API does not answer, or what answers is not the API."""

    code = "api_unreachable"


@dataclass(frozen=True)
class Call(Generic[_Answer]):
    """A request, and the shape of its answer. It may be repeated: a change has an Idempotency-Key.

    It has a `body` that is sent as JSON, or a `file` that is sent as it is, or neither.
    """

    method: str
    path: str
    shape: type[_Answer]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    file: OutgoingFile | None = None

    def content(self) -> bytes | Iterator[bytes] | None:
        """Return what is sent."""
        return self.file.pieces() if self.file is not None else self._json()

    def async_content(self) -> bytes | AsyncIterator[bytes] | None:
        """Return what is sent, for an event loop, which no read of a file blocks."""
        return self.file.async_pieces() if self.file is not None else self._json()

    def _json(self) -> bytes | None:
        return None if self.body is None else msgspec.json.encode(self.body)


def answer_in(call: Call[_Answer], response: httpx.Response) -> _Answer:
    """Return the answer in a response. Raises ApiProblem, and ApiUnreachable if it is not from an API."""
    try:
        if response.is_success:
            return msgspec.json.decode(response.content, type=call.shape)
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
        kind = str(problem.get("kind") or problem["code"])
        raise ApiProblem(str(problem["detail"]), code=str(problem["code"]), status=response.status_code, kind=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise ApiUnreachable(
            f"{response.url} answered with status {response.status_code}, but not as the API does: check the URL."
        ) from error


def unreachable(url: str, error: Exception, *, is_change: bool = False) -> ApiUnreachable:
    """Return the error for an API that does not answer; a change may nevertheless be done."""
    reason = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return ApiUnreachable(
            f"The certificate of {url} is not trusted ({reason}): give the file with its authority's certificate.",
            code="api_not_trusted",
        )
    doubt = " It is not known whether it was done: look before you repeat it." if is_change else ""
    question = "does `acm api` run there?"
    if isinstance(error, httpx.RemoteProtocolError):  # TLS 1.3: a client's certificate is refused after the handshake
        question = "does `acm api` run there, and is your certificate, if you show one, of its authority?"
    return ApiUnreachable(f"{url} does not answer ({reason.rstrip('.')}): {question}{doubt}")


def is_to_repeat(response: httpx.Response) -> bool:
    """Whether a request should be made again soon: the ledger could not be used."""
    return response.status_code in _OUTAGES


def is_outage(error: ApiError) -> bool:
    """Whether the API, or its ledger, cannot be used now, and may be later."""
    return isinstance(error, ApiUnreachable) or getattr(error, "status", 0) in _OUTAGES


def to_send(request: SendRequest) -> Call[Sent]:
    """Return the call that sends a command."""
    return change_call("/v1/commands", Sent, request)


def for_command(command_id: str, wait_s: float = 0) -> Call[CommandView]:
    """Return the call for one command, which is answered once it is completed, or after so many seconds."""
    return Call(
        "GET", f"/v1/commands/{quote(command_id, safe='')}", CommandView, given_parameters({"wait_s": wait_s or None})
    )


def for_timeline(command_id: str) -> Call[CommandTimeline]:
    """Return the call for the timeline of a command."""
    return Call("GET", f"/v1/commands/{quote(command_id, safe='')}/timeline", CommandTimeline)


def for_commands(which: CommandFilter, cursor: str | None, limit: int) -> Call[PageOf[CommandView]]:
    """Return the call for a page of commands."""
    return Call("GET", "/v1/commands", PageOf[CommandView], _query(which, cursor, limit))


def change_of_command(command_id: str, action: str) -> Call[CommandView]:
    """Return the call that cancels or abandons a command."""
    return change_call(f"/v1/commands/{quote(command_id, safe='')}/{action}", CommandView)


def to_retry(path: str, item_id: str) -> Call[Sent]:
    """Return the call that sends a command again (`commands`), or those of an operation that failed (`operations`)."""
    return change_call(f"/v1/{path}/{quote(item_id, safe='')}/retry", Sent)


def for_ids(beginning: str) -> Call[IdsFound]:
    """Return the call for the ids that begin with a text."""
    return Call("GET", "/v1/ids", IdsFound, {"beginning": beginning})


def for_servers() -> Call[PageOf[ServerView]]:
    """Return the call for the servers that run on the ledger."""
    return Call("GET", "/v1/servers", PageOf[ServerView])


def for_agent(name: str) -> Call[AgentView]:
    """Return the call for one agent."""
    return Call("GET", f"/v1/agents/{quote(name, safe='')}", AgentView)


def for_agents(which: AgentFilter, cursor: str | None, limit: int) -> Call[PageOf[AgentView]]:
    """Return the call for a page of agents."""
    return Call("GET", "/v1/agents", PageOf[AgentView], _query(which, cursor, limit))


def for_events(which: EventFilter, after: int | None, since: datetime | None, *, follow: bool) -> Call[None]:
    """Return the call for a stream of events, of which only a problem is an answer."""
    query = {**asdict(which), "after": after, "since": since, "follow": str(follow).lower()}
    return Call("GET", "/v1/events", NoneType, given_parameters(query))


def to_forget(name: str, *, force: bool) -> Call[ForgottenAgent]:
    """Return the call that forgets an agent."""
    return change_call(f"/v1/agents/{quote(name, safe='')}/forget", ForgottenAgent, ForgetRequest(force))


def for_operation(operation_id: str, wait_s: float = 0) -> Call[OperationProgress]:
    """Return the call for one operation, which is answered once it is done, or after so many seconds."""
    path = f"/v1/operations/{quote(operation_id, safe='')}"
    return Call("GET", path, OperationProgress, given_parameters({"wait_s": wait_s or None}))


def for_operations(cursor: str | None, limit: int) -> Call[PageOf[OperationView]]:
    """Return the call for a page of operations."""
    return Call("GET", "/v1/operations", PageOf[OperationView], given_parameters({"cursor": cursor, "limit": limit}))


def change_of_operation(operation_id: str, action: str) -> Call[CancelledCommands]:
    """Return the call that cancels or abandons the commands of an operation."""
    return change_call(f"/v1/operations/{quote(operation_id, safe='')}/{action}", CancelledCommands)


def for_principal() -> Call[Principal]:
    """Return the call for the principal that the token is of."""
    return Call("GET", "/v1/me", Principal)


def change_call(path: str, shape: type[_Answer], body: Any = None) -> Call[_Answer]:
    """Return the call of a route that changes something, with a new Idempotency-Key."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    if body is not None:
        headers["Content-Type"] = "application/json"
    return Call("POST", path, shape, body=body, headers=headers)


def _query(which: CommandFilter | AgentFilter, cursor: str | None, limit: int) -> dict[str, Any]:
    return given_parameters({**asdict(which), "cursor": cursor, "limit": limit})


def given_parameters(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are not None, as they are written in a query."""
    return {
        name: rfc3339(value) if isinstance(value, datetime) else value
        for name, value in query.items()
        if value is not None
    }
