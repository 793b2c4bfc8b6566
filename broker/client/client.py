"""The synchronous client of the API."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from broker.client import calls
from broker.client.addresses import checked_url, proof_in_headers, trusting
from broker.client.admin import AdminClient
from broker.client.blobs import BlobClient
from broker.client.event_reader import SILENCE_S, EventReader
from broker.client.groups import GroupClient
from broker.client.reports import ReportClient
from broker.contract.states import CommandState
from broker.contract.trace_context import TraceContext
from broker.fleet.explanation import CommandTimeline
from broker.fleet.models import (
    AgentFilter,
    AgentView,
    CancelledCommands,
    CommandFilter,
    CommandView,
    EventFilter,
    EventView,
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
from broker.fleet.pages import read_pages
from broker.ledger.outcomes import WaitTimeout
from broker.system.retry import growing_wait

__all__ = [
    "ANSWER_WITHIN_S",
    "EVERYTHING",
    "EVERY_AGENT",
    "EVERY_EVENT",
    "LONGEST_WAIT_S",
    "LOOK_S",
    "Client",
    "timeouts",
]


_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item", CommandView, OperationProgress)
LONGEST_WAIT_S = 30.0  # of one request for a command that is not completed
LOOK_S = 1.0  # between two looks at what is shown while it is waited for
ANSWER_WITHIN_S = 30.0  # beyond that wait
_CONNECT_WITHIN_S = 10.0
EVERYTHING, EVERY_AGENT, EVERY_EVENT = CommandFilter(), AgentFilter(), EventFilter()


class Client(AdminClient, BlobClient, GroupClient, ReportClient):
    """The fleet behind an API, for the principal of an access token, or of the certificate in a file with its key.

    It is a `Fleet`, and closed after its block.

    A request that gets no answer within `answer_within_s` seconds, or finds the ledger unavailable, is repeated such
    that there are `attempts` in about 1.5 s; a change is done only once nevertheless. A wait lasts over an outage, of
    which it `tell`s. `ca` is the file of the authority whose certificates are trusted, by default the system's
    authorities; `trace` is the context that its requests continue. Every method raises ApiProblem, whose code
    docs/api.md lists, and ApiUnreachable. Creating it raises InvalidArgument for a URL that is neither https nor of
    this machine, and for files that cannot be used, and ExposedFileError for a key that another user may read.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        attempts: int = calls.ATTEMPTS,
        answer_within_s: float = ANSWER_WITHIN_S,
        tell: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
        trace: TraceContext | None = None,
    ) -> None:
        self._sleep, self._tell = sleep, tell
        self._attempts, self._answer_within_s = attempts, answer_within_s
        url = checked_url(url)
        self._http = httpx.Client(
            base_url=url,
            headers=proof_in_headers(token, certificate) | dict(trace.pairs() if trace is not None else ()),
            verify=trusting(url, ca, certificate, key),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def principal(self) -> Principal:
        """Return who the token is of."""
        return self._do(calls.for_principal())

    def send(self, request: SendRequest) -> Sent:
        """Send a command to one agent or many; one to a name of one agent has no operation."""
        return self._do(calls.to_send(request))

    def command(self, command_id: str) -> CommandView:
        """Return one command."""
        return self._do(calls.for_command(command_id))

    def timeline(self, command_id: str) -> CommandTimeline:
        """Return every hop of a command, and of an open one where it waits and why."""
        return self._do(calls.for_timeline(command_id))

    def wait_for_command(
        self, command_id: str, timeout_s: float, seen: Callable[[CommandView], None] | None = None
    ) -> CommandView:
        """Return a command once it is completed, or as it is after `timeout_s` seconds.

        `seen` gets it about each second. Raises WaitTimeout if the API is still away at the end.
        """

        def is_done(command: CommandView) -> bool:
            return command.state is CommandState.COMPLETED

        return self._wait(lambda wait_s: calls.for_command(command_id, wait_s), is_done, timeout_s, seen)

    def commands(
        self, which: CommandFilter = EVERYTHING, *, cursor: str | None = None, limit: int = 100
    ) -> PageOf[CommandView]:
        """Return a page of commands, newest first; those of one operation by agent."""
        return self._do(calls.for_commands(which, cursor, limit))

    def each_command(self, which: CommandFilter = EVERYTHING) -> Iterator[CommandView]:
        """Yield all these commands, as their pages are read."""
        cursor: str | None = None
        while True:
            page = self.commands(which, cursor=cursor)
            yield from page.items
            if (cursor := page.next) is None:
                return

    def newest_commands(self, which: CommandFilter = EVERYTHING, limit: int | None = None) -> list[CommandView]:
        """Return the newest of these commands, at most `limit`, from as many pages as it takes; all without a limit."""
        return read_pages(lambda cursor, count: self.commands(which, cursor=cursor, limit=count), limit)

    def cancel(self, command_id: str) -> CommandView:
        """Request the cancellation of a command; its result reports the outcome."""
        return self._do(calls.change_of_command(command_id, "cancel"))

    def abandon(self, command_id: str) -> CommandView:
        """Complete a command as interrupted without asking its agent."""
        return self._do(calls.change_of_command(command_id, "abandon"))

    def retry(self, command_id: str) -> Sent:
        """Send a command again that has ended."""
        return self._do(calls.to_retry("commands", command_id))

    def agent(self, name: str) -> AgentView:
        """Return one agent."""
        return self._do(calls.for_agent(name))

    def agents(
        self, which: AgentFilter = EVERY_AGENT, *, cursor: str | None = None, limit: int = 100
    ) -> PageOf[AgentView]:
        """Return a page of agents, in order of name."""
        return self._do(calls.for_agents(which, cursor, limit))

    def each_agent(self, which: AgentFilter = EVERY_AGENT) -> Iterator[AgentView]:
        """Yield all these agents, as their pages are read."""
        cursor: str | None = None
        while True:
            page = self.agents(which, cursor=cursor)
            yield from page.items
            if (cursor := page.next) is None:
                return

    def events(
        self,
        which: EventFilter = EVERY_EVENT,
        *,
        after: int | None = None,
        since: datetime | None = None,
        follow: bool = False,
    ) -> Iterator[EventView]:
        """Yield events in their order, each once, also over lost connections, as `Fleet.events` says.

        Once it had an answer it connects again without an end. Raises ApiProblem with the code `events_pruned` if it
        was away for too long; look at what there is then, and follow from there.
        """
        reader = EventReader(which, after, since, follow=follow)
        while True:
            call, failure = reader.call(), None
            try:
                with self._http.stream(call.method, call.path, params=dict(call.query), timeout=SILENCE_S) as response:
                    if reader.is_in(response):
                        for data in response.iter_bytes():
                            yield from reader.events_in(data)
                        if reader.is_complete:
                            return
                    else:
                        response.read()
                        reader.refuse(call, response)
            except httpx.TransportError as error:
                failure = error
            self._sleep(reader.pause(str(self._http.base_url), failure))

    def forget(self, name: str, *, force: bool = False) -> ForgottenAgent:
        """Take an agent that is gone out of the lists and its groups; its open commands end as interrupted."""
        return self._do(calls.to_forget(name, force=force))

    def operation(self, operation_id: str) -> OperationProgress:
        """Return an operation and how far its commands are."""
        return self._do(calls.for_operation(operation_id))

    def wait_for_operation(
        self, operation_id: str, timeout_s: float, seen: Callable[[OperationProgress], None] | None = None
    ) -> OperationProgress:
        """Return an operation once all its commands are completed, or as it is after `timeout_s` seconds.

        `seen` and what is raised are as for a command.
        """
        return self._wait(lambda wait_s: calls.for_operation(operation_id, wait_s), lambda it: it.done, timeout_s, seen)

    def operations(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[OperationView]:
        """Return a page of operations, newest first."""
        return self._do(calls.for_operations(cursor, limit))

    def retry_operation(self, operation_id: str) -> Sent:
        """Send those of its commands again that have ended in an error, as a new operation."""
        return self._do(calls.to_retry("operations", operation_id))

    def cancel_operation(self, operation_id: str) -> CancelledCommands:
        """Request the cancellation of its open commands."""
        return self._do(calls.change_of_operation(operation_id, "cancel"))

    def abandon_operation(self, operation_id: str) -> CancelledCommands:
        """Complete its open commands as interrupted, without asking their agents."""
        return self._do(calls.change_of_operation(operation_id, "abandon"))

    def find_ids(self, beginning: str) -> IdsFound:
        """Return the ids of commands and operations that begin with a text, at most three of each."""
        return self._do(calls.for_ids(beginning))

    def servers(self) -> tuple[ServerView, ...]:
        """Return the servers that run on the ledger."""
        return (self._do(calls.for_servers())).items

    def _wait(
        self,
        call: Callable[[float], calls.Call[_Item]],
        is_done: Callable[[_Item], bool],
        timeout_s: float,
        seen: Callable[[_Item], None] | None,
    ) -> _Item:
        end, is_away = time.monotonic() + timeout_s, False
        while True:
            left_s = max(0.0, end - time.monotonic())
            try:
                found = self._do(call(min(left_s, LONGEST_WAIT_S if seen is None else LOOK_S)))
            except calls.ApiError as error:
                if not calls.is_outage(error):
                    raise
                if not left_s:
                    raise WaitTimeout(f"No result after {timeout_s:g} s. {error}") from error
                if not is_away:
                    self._tell(f"{error} Waiting for it.")
                is_away = True
                continue
            if is_done(found) or not left_s:
                return found
            is_away = False
            if seen is not None:
                seen(found)

    def _do(self, call: calls.Call[_Answer]) -> _Answer:
        def take(response: httpx.Response) -> _Answer:
            response.read()
            return calls.answer_in(call, response)

        return self._receive(call, take)

    def _receive(self, call: calls.Call[_Answer], take: Callable[[httpx.Response], _Answer]) -> _Answer:
        """Return what `take` makes of the response to a call. The last attempt's failure is raised."""
        for attempt in range(self._attempts):
            is_last = attempt == self._attempts - 1
            try:
                with self._http.stream(
                    call.method,
                    call.path,
                    params=dict(call.query),
                    content=call.content(),
                    headers=dict(call.headers),
                    timeout=timeouts(call, self._answer_within_s),
                ) as response:
                    if response.is_success:
                        return take(response)
                    if is_last or not calls.is_to_repeat(response):
                        response.read()
                        return calls.answer_in(call, response)
            except httpx.TransportError as error:
                if is_last:
                    is_change = call.method != "GET"
                    raise calls.unreachable(str(self._http.base_url), error, is_change=is_change) from error
            self._sleep(growing_wait(attempt, first_s=calls.FIRST_WAIT_S))
        raise AssertionError("unreachable: the last attempt returns or raises")


def timeouts(call: calls.Call[Any], answer_within_s: float) -> httpx.Timeout:
    """Return the timeouts of a request that is answered within so many seconds, beyond the wait that it asks for."""
    wait_s = float(call.query.get("wait_s", 0))
    return httpx.Timeout(answer_within_s + wait_s, connect=min(answer_within_s, _CONNECT_WITHIN_S))
