"""Records the feedback of agents in the ledger: states, results and sequence numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from broker.command_types import parameters_of
from broker.contract.commands import is_secret
from broker.contract.messages import Ack, Feedback, JsonObject, RefusedMessage
from broker.contract.states import ErrorCode, FeedbackKind
from broker.ledger.agents import get_or_create_all
from broker.ledger.completion import complete_each, mask_completed
from broker.ledger.event_types import EventType
from broker.ledger.group_configuration import answer_fetch_config
from broker.ledger.many_rows import as_keys, as_rows, given_keys, update_each
from broker.ledger.noted_events import note_all
from broker.ledger.outbox import extend_timeouts
from broker.ledger.outcomes import SERVER
from broker.ledger.records import AgentRecord
from broker.ledger.report_requests import request_reports
from broker.ledger.sequence import begin_epoch_after_conflict, is_conflict, resend_from_gap
from broker.ledger.tables import COMMANDS, PRUNED_COMMANDS, CommandState
from broker.ledger.unmatched_results import store_unmatched

__all__ = [
    "Completed",
    "Reached",
    "Recorded",
    "record_feedback",
]


_UNANSWERED = (CommandState.QUEUED, CommandState.SENT)
# A late or repeated acceptance must not set a command back to an earlier state.
_EARLIER_STATES = {
    CommandState.ACCEPTED: _UNANSWERED,
    CommandState.RUNNING: (*_UNANSWERED, CommandState.ACCEPTED),
}
_EVENTS = {CommandState.ACCEPTED: EventType.COMMAND_ACCEPTED, CommandState.RUNNING: EventType.COMMAND_RUNNING}
_STATE_BY_KIND = {FeedbackKind.ACCEPTED: CommandState.ACCEPTED, FeedbackKind.PROGRESS: CommandState.RUNNING}
_FIRST_STORED_AT = sa.func.coalesce(COMMANDS.c.stored_at, sa.bindparam("time", type_=sa.Float))
_ADVANCE = update_each(COMMANDS.c.id, COMMANDS.c.state, COMMANDS.c.running_at).values(
    to_send=False, stored_at=_FIRST_STORED_AT
)


@dataclass(frozen=True)
class Recorded:
    """The acks to publish after the commit. `refused` are results that only refuse a message.

    `reached` are the hops that were noted by it;
    `completed` are the commands whose results were stored by it. `request` is the id of a request to report to send:
    what the agent is missing is not believed without an answer.
    """

    acks: list[Ack]
    refused: list[Feedback]
    request: str | None = None
    reached: Sequence["Reached"] = ()
    completed: Sequence["Completed"] = ()


class Reached(msgspec.Struct, frozen=True):
    """A hop of a command: its new state, and the seconds since the hop before by the ledger's clock, if known."""

    command_id: str
    type: str | None
    state: CommandState
    seconds: float | None


class Completed(msgspec.Struct, frozen=True):
    """A command that its agent has completed: its type and when it was created (seconds since 1970), if known.

    `total_s` is how long that was ago, by the ledger's clock. `trace` is the text of the context that it was created
    in, if that is recorded.
    """

    type: str | None
    created_at: float | None
    result: Feedback
    total_s: float | None
    trace: str | None = None


class _Known(msgspec.Struct, frozen=True):
    """What the ledger knows of a command; `digest` is that of its result, times are in seconds since 1970."""

    id: str
    agent: str
    epoch: int
    number: int
    state: str
    digest: str | None
    body: str
    type: str | None = None
    created_at: float | None = None
    sent_at: float | None = None
    stored_at: float | None = None
    operation_id: str | None = None
    trace: str | None = None


def _known_in(table: sa.Table, state: Any, body: Any, *more: Any) -> sa.Select[Any]:
    columns = table.c
    found = sa.select(columns.id, columns.agent, columns.epoch, columns.number, state, columns.digest, body, *more)
    return found.where(columns.id.in_(given_keys()))


_TIMES = (COMMANDS.c.created_at, COMMANDS.c.sent_at, COMMANDS.c.stored_at)
_MORE = (COMMANDS.c.type, *_TIMES, COMMANDS.c.operation_id, COMMANDS.c.trace)
_GIVEN_COMMANDS = _known_in(COMMANDS, COMMANDS.c.state, COMMANDS.c.body, *_MORE)
_GIVEN_PRUNED = _known_in(PRUNED_COMMANDS, sa.literal(str(CommandState.COMPLETED)), sa.literal(""))


@dataclass
class _Changes:
    """New states and results by the id of their command, and the agents that have answered what was sent to them."""

    states: dict[str, CommandState] = field(default_factory=dict)
    results: dict[str, Feedback] = field(default_factory=dict)
    answering: set[str] = field(default_factory=set)


def record_feedback(
    connection: sa.Connection, said: Mapping[str, Sequence[Feedback]], now: datetime
) -> dict[str, Recorded]:
    """Within a transaction, record what agents, by their names, have said together.

    A command stays open if only its message or its number was refused: the agent may accept it when it is sent again
    with other signatures, or another number. However many gaps and conflicts an agent reports, its commands are made
    due once, and begin at most one new epoch. Only what is unusual costs statements of its own.
    """
    rows = get_or_create_all(connection, list(said), now)
    gaps = {row.name: [it for it in said[row.name] if it.kind is FeedbackKind.GAP] for row in rows}
    # Before the states: what the same messages accept or complete is not missing any more.
    requests = request_reports(connection, [it for it in rows if resend_from_gap(connection, it, gaps[it.name], now)])
    known, changes = _known_commands(connection, said.values()), _Changes()
    reports = [_Report(row, said[row.name], known, changes, now.timestamp()) for row in rows]
    _write(connection, changes, known, now)
    extend_timeouts(connection, [row for row in rows if row.name in changes.answering], now)
    for report in reports:
        store_unmatched(connection, report.row.name, report.unmatched, now.timestamp())
        if report.has_conflict:
            begin_epoch_after_conflict(connection, report.row, now)
    return {
        it.row.name: Recorded(it.acks, it.refused, requests.get(it.row.name), it.reached, it.completed)
        for it in reports
    }


class _Report:
    """What one agent has said, compared with what is known of its commands; it adds to the changes."""

    def __init__(
        self,
        row: AgentRecord,
        feedbacks: Sequence[Feedback],
        known: Mapping[str, _Known],
        changes: _Changes,
        now: float,
    ) -> None:
        self.row = row
        self.unmatched: list[Feedback] = []
        self.reached: list[Reached] = []
        self.completed: list[Completed] = []
        self._known = known
        self._changes = changes
        self._now = now
        results = [it for it in feedbacks if it.kind is FeedbackKind.RESULT and it.command_id and it.digest]
        self.refused = [it for it in results if _refuses_message(it) and self._is_open(it)]
        refused = {_key(it) for it in self.refused}
        results = [it for it in results if _key(it) not in refused]
        self.acks = [Ack(*_key(it)) for it in results]
        self._advance([it for it in feedbacks if row.incarnation in (None, it.incarnation)])
        for result in results:
            self._complete(result)

    @property
    def has_conflict(self) -> bool:
        """Whether the agent has seen the number of an open command on another command."""
        return any(is_conflict(self.row, it) and self._is_open(it) for it in self.refused)

    def _own(self, feedback: Feedback) -> _Known | None:
        found = self._known.get(feedback.command_id or "")
        return found if found is not None and found.agent == self.row.name else None

    def _is_open(self, feedback: Feedback) -> bool:
        own = self._own(feedback)
        return own is not None and own.state != CommandState.COMPLETED and own.id not in self._changes.results

    def _advance(self, feedbacks: Sequence[Feedback]) -> None:
        """Advance the commands that the agent has accepted or begun."""
        for kind, state in _STATE_BY_KIND.items():
            for feedback in feedbacks:
                own = self._own(feedback) if feedback.kind is kind else None
                if own is not None and self._changes.states.get(own.id, own.state) in _EARLIER_STATES[state]:
                    self._changes.states[own.id] = state
                    self._note_answer(own)
                    self._note_hop(own, state)

    def _complete(self, result: Feedback) -> None:
        """Complete the command; the result is unmatched if it is of no open command and not the one stored already.

        It replaces what the server itself had completed the command with: only the agent knows what happened.
        """
        own, results = self._own(result), self._changes.results
        if own is None:
            self.unmatched.append(result)
            return
        stored = results[own.id].digest if own.id in results else own.digest
        if stored == result.digest:
            return
        if self._is_open(result) or (stored == SERVER and not _refuses_message(result)):
            results[own.id] = result
            self.completed.append(Completed(own.type, own.created_at, result, self._total_s(own), own.trace))
            self._note_answer(own)
        else:
            self.unmatched.append(result)

    def _note_answer(self, own: _Known) -> None:
        if own.state in _UNANSWERED:
            self._changes.answering.add(own.agent)

    def _total_s(self, own: _Known) -> float | None:
        return None if own.created_at is None else max(0.0, round(self._now - own.created_at, 6))

    def _note_hop(self, own: _Known, state: CommandState) -> None:
        since = own.sent_at if state is CommandState.ACCEPTED else own.stored_at
        self.reached.append(Reached(own.id, own.type, state, None if since is None else self._now - since))


def _key(result: Feedback) -> tuple[str, str]:
    return result.command_id or "", result.digest or ""


def _known_commands(connection: sa.Connection, said: Iterable[Sequence[Feedback]]) -> dict[str, _Known]:
    """Return the commands that the feedback names by their ids, as far as the ledger knows them."""
    names = {it.command_id for feedbacks in said for it in feedbacks if it.command_id}
    found = connection.execute(_GIVEN_COMMANDS, as_keys(names)).all() if names else ()
    known = {row[0]: _Known(*row) for row in found}
    missing = names - known.keys()
    pruned = connection.execute(_GIVEN_PRUNED, as_keys(missing)) if missing else ()
    return known | {row[0]: _Known(*row) for row in pruned}


def _refuses_message(result: Feedback) -> bool:
    """Whether a result refuses only the command's message or number, not the command."""
    data = result.data or {}
    message = result.code is ErrorCode.REJECTED and data.get("refused") == RefusedMessage().refused
    return message or result.code is ErrorCode.SUPERSEDED


def _write(connection: sa.Connection, changes: _Changes, known: Mapping[str, _Known], now: datetime) -> None:
    time = now.timestamp()
    states = {
        name: (state, time if state is CommandState.RUNNING else None)
        for name, state in changes.states.items()
        if name not in changes.results
    }
    if states:
        connection.execute(_ADVANCE, {**as_rows(states), "time": time})
        for state, event_type in _EVENTS.items():
            reached = ((known[name].agent, name) for name, (other, _) in states.items() if other is state)
            note_all(connection, event_type, reached, now=now)
    if changes.results:
        complete_each(connection, changes.results, known, now)
    for name, result in changes.results.items():
        if _may_name_a_secret(result.command):
            mask_completed(connection, name)
        answer_fetch_config(connection, known[name].agent, result, now)


def _may_name_a_secret(echo: JsonObject | None) -> bool:
    """Whether a command, as its result echoes it, may contain a secret; without an echo it may."""
    if echo is None:
        return True
    command_type, parameters = echo.get("type"), echo.get("parameters")
    if not isinstance(command_type, str) or not isinstance(parameters, dict):
        return True
    shape = parameters_of(command_type)
    return any(is_secret(command_type, name, shape) for name in parameters)
