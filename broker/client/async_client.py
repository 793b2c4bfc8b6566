"""The asynchronous client of the API; it differs from the synchronous one in `async` and `await` alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx

from broker.client import calls
from broker.client.addresses import checked_url, proof_in_headers, trusting
from broker.client.async_admin import AsyncAdminClient
from broker.client.async_blobs import AsyncBlobClient
from broker.client.async_groups import AsyncGroupClient
from broker.client.async_reports import AsyncReportClient
from broker.client.client import (
    ANSWER_WITHIN_S,
    EVERY_AGENT,
    EVERY_EVENT,
    EVERYTHING,
    LONGEST_WAIT_S,
    timeouts,
)
from broker.client.event_reader import SILENCE_S, EventReader
from broker.contract.states import CommandState
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
from broker.ledger.outcomes import WaitTimeout
from broker.system.retry import growing_wait

__all__ = [
    "AsyncClient",
]


_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item", CommandView, OperationProgress)


class AsyncClient(AsyncAdminClient, AsyncBlobClient, AsyncGroupClient, AsyncReportClient):
    """The fleet behind an API, as `Client` has it, for programs with an event loop."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        url = checked_url(url)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=proof_in_headers(token, certificate),
            verify=trusting(url, ca, certificate, key),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def principal(self) -> Principal:
        """Return who the token is of."""
        return await self._do(calls.for_principal())

    async def send(self, request: SendRequest) -> Sent:
        """Send a command to one agent or many; one to a name of one agent has no operation."""
        return await self._do(calls.to_send(request))

    async def command(self, command_id: str) -> CommandView:
        """Return one command."""
        return await self._do(calls.for_command(command_id))

    async def timeline(self, command_id: str) -> CommandTimeline:
        """Return every hop of a command, and of an open one where it waits and why."""
        return await self._do(calls.for_timeline(command_id))

    async def wait_for_command(self, command_id: str, timeout_s: float) -> CommandView:
        """Return a command once it is completed, or as it is after `timeout_s` seconds.

        Raises WaitTimeout if the API is still away at the end.
        """

        def is_done(command: CommandView) -> bool:
            return command.state is CommandState.COMPLETED

        return await self._wait(lambda wait_s: calls.for_command(command_id, wait_s), is_done, timeout_s)

    async def commands(
        self, which: CommandFilter = EVERYTHING, *, cursor: str | None = None, limit: int = 100
    ) -> PageOf[CommandView]:
        """Return a page of commands, newest first; those of one operation by agent."""
        return await self._do(calls.for_commands(which, cursor, limit))

    async def each_command(self, which: CommandFilter = EVERYTHING) -> AsyncIterator[CommandView]:
        """Yield all these commands, as their pages are read."""
        cursor: str | None = None
        while True:
            page = await self.commands(which, cursor=cursor)
            for item in page.items:
                yield item
            if (cursor := page.next) is None:
                return

    async def newest_commands(self, which: CommandFilter = EVERYTHING, limit: int | None = None) -> list[CommandView]:
        """Return the newest of these commands, at most `limit`, from as many pages as it takes; all without a limit."""
        found: list[CommandView] = []
        async for command in self.each_command(which):
            found.append(command)
            if len(found) == limit:
                break
        return found

    async def cancel(self, command_id: str) -> CommandView:
        """Request the cancellation of a command; its result reports the outcome."""
        return await self._do(calls.change_of_command(command_id, "cancel"))

    async def abandon(self, command_id: str) -> CommandView:
        """Complete a command as interrupted without asking its agent."""
        return await self._do(calls.change_of_command(command_id, "abandon"))

    async def retry(self, command_id: str) -> Sent:
        """Send a command again that has ended."""
        return await self._do(calls.to_retry("commands", command_id))

    async def agent(self, name: str) -> AgentView:
        """Return one agent."""
        return await self._do(calls.for_agent(name))

    async def agents(
        self, which: AgentFilter = EVERY_AGENT, *, cursor: str | None = None, limit: int = 100
    ) -> PageOf[AgentView]:
        """Return a page of agents, in order of name."""
        return await self._do(calls.for_agents(which, cursor, limit))

    async def each_agent(self, which: AgentFilter = EVERY_AGENT) -> AsyncIterator[AgentView]:
        """Yield all these agents, as their pages are read."""
        cursor: str | None = None
        while True:
            page = await self.agents(which, cursor=cursor)
            for item in page.items:
                yield item
            if (cursor := page.next) is None:
                return

    async def events(
        self,
        which: EventFilter = EVERY_EVENT,
        *,
        after: int | None = None,
        since: datetime | None = None,
        follow: bool = False,
    ) -> AsyncIterator[EventView]:
        """Yield events in their order, each once, also over lost connections, as `Client.events` does."""
        reader = EventReader(which, after, since, follow=follow)
        while True:
            call, failure = reader.call(), None
            query = dict(call.query)
            try:
                async with self._http.stream(call.method, call.path, params=query, timeout=SILENCE_S) as response:
                    if reader.is_in(response):
                        async for data in response.aiter_bytes():
                            for event in reader.events_in(data):
                                yield event
                        if reader.is_complete:
                            return
                    else:
                        await response.aread()
                        reader.refuse(call, response)
            except httpx.TransportError as error:
                failure = error
            await self._sleep(reader.pause(str(self._http.base_url), failure))

    async def forget(self, name: str, *, force: bool = False) -> ForgottenAgent:
        """Take an agent that is gone out of the lists and its groups; its open commands end as interrupted."""
        return await self._do(calls.to_forget(name, force=force))

    async def operation(self, operation_id: str) -> OperationProgress:
        """Return an operation and how far its commands are."""
        return await self._do(calls.for_operation(operation_id))

    async def wait_for_operation(self, operation_id: str, timeout_s: float) -> OperationProgress:
        """Return an operation once all its commands are completed, or as it is after `timeout_s` seconds.

        Raises WaitTimeout if the API is still away at the end.
        """
        return await self._wait(lambda wait_s: calls.for_operation(operation_id, wait_s), lambda it: it.done, timeout_s)

    async def operations(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[OperationView]:
        """Return a page of operations, newest first."""
        return await self._do(calls.for_operations(cursor, limit))

    async def retry_operation(self, operation_id: str) -> Sent:
        """Send those of its commands again that have ended in an error, as a new operation."""
        return await self._do(calls.to_retry("operations", operation_id))

    async def cancel_operation(self, operation_id: str) -> CancelledCommands:
        """Request the cancellation of its open commands."""
        return await self._do(calls.change_of_operation(operation_id, "cancel"))

    async def abandon_operation(self, operation_id: str) -> CancelledCommands:
        """Complete its open commands as interrupted, without asking their agents."""
        return await self._do(calls.change_of_operation(operation_id, "abandon"))

    async def find_ids(self, beginning: str) -> IdsFound:
        """Return the ids of commands and operations that begin with a text, at most three of each."""
        return await self._do(calls.for_ids(beginning))

    async def servers(self) -> tuple[ServerView, ...]:
        """Return the servers that run on the ledger."""
        return (await self._do(calls.for_servers())).items

    async def _wait(
        self, call: Callable[[float], calls.Call[_Item]], is_done: Callable[[_Item], bool], timeout_s: float
    ) -> _Item:
        end = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, end - time.monotonic())
            try:
                found = await self._do(call(min(left_s, LONGEST_WAIT_S)))
            except calls.ApiError as error:
                if not calls.is_outage(error):
                    raise
                if not left_s:
                    raise WaitTimeout(f"No result after {timeout_s:g} s. {error}") from error
                continue
            if is_done(found) or not left_s:
                return found

    async def _do(self, call: calls.Call[_Answer]) -> _Answer:
        async def take(response: httpx.Response) -> _Answer:
            await response.aread()
            return calls.answer_in(call, response)

        return await self._receive(call, take)

    async def _receive(
        self, call: calls.Call[_Answer], take: Callable[[httpx.Response], Awaitable[_Answer]]
    ) -> _Answer:
        """Return what `take` makes of the response to a call. The last attempt's failure is raised."""
        for attempt in range(calls.ATTEMPTS):
            is_last = attempt == calls.ATTEMPTS - 1
            try:
                async with self._http.stream(
                    call.method,
                    call.path,
                    params=dict(call.query),
                    content=call.async_content(),
                    headers=dict(call.headers),
                    timeout=timeouts(call, ANSWER_WITHIN_S),
                ) as response:
                    if response.is_success:
                        return await take(response)
                    if is_last or not calls.is_to_repeat(response):
                        await response.aread()
                        return calls.answer_in(call, response)
            except httpx.TransportError as error:
                if is_last:
                    is_change = call.method != "GET"
                    raise calls.unreachable(str(self._http.base_url), error, is_change=is_change) from error
            await self._sleep(growing_wait(attempt, first_s=calls.FIRST_WAIT_S))
        raise AssertionError("unreachable: the last attempt returns or raises")
