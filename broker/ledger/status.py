"""Records the statuses of agents in the ledger: their rows, their groups, and the commands that become due."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from broker.contract.codec import encode
from broker.contract.messages import Status
from broker.ledger.agents import get_or_create_all, status_in
from broker.ledger.damage import decode_or_set_aside
from broker.ledger.event_types import EventType
from broker.ledger.groups import set_groups
from broker.ledger.many_rows import as_rows, update_each
from broker.ledger.noted_events import note
from broker.ledger.outbox import requeue
from broker.ledger.records import AgentRecord
from broker.ledger.report_requests import request_reports
from broker.ledger.sequence import Stand, follow_store, resend_after_rollbacks
from broker.ledger.status_events import changes_of, presence_after
from broker.ledger.status_order import Standing, standing_of
from broker.ledger.tables import AGENTS

__all__ = [
    "RecordedStatuses",
    "record_statuses",
]


_MAX_PAST = 4
_COLUMNS = (
    AGENTS.c.online,
    AGENTS.c.incarnation,
    AGENTS.c.store_generation,
    AGENTS.c.status,
    AGENTS.c.seen_at,
    AGENTS.c.request,
    AGENTS.c.attempts,
    AGENTS.c.past_incarnations,
    AGENTS.c.name_conflict_at,
)
_UPDATE = update_each(AGENTS.c.name, *_COLUMNS).values(forgotten_at=None, silent_at=None)


@dataclass(frozen=True)
class RecordedStatuses:
    """The statuses that were `new`, the agents whose name two clients use, and requests to report to send.

    A request is (agent, id): what the agent's status says is not believed until a status answers it.
    """

    new: list[Status]
    conflicts: list[str]
    requests: list[tuple[str, str]]

    def add(self, later: "RecordedStatuses") -> None:
        """Add statuses that were recorded later in the same turn."""
        self.new.extend(later.new)
        self.conflicts.extend(later.conflicts)
        self.requests.extend(later.requests)


@dataclass(frozen=True)
class _Report:
    """A status that is newer than the one before (None: there is none that can be read), and its agent's row.

    `is_repeat`: the broker may have delivered it before, so it does not show that the agent is alive now. `is_certain`:
    it is the agent's state now, as it answers a request, or its agent cannot be asked.
    """

    row: AgentRecord
    before: Status | None
    status: Status
    is_repeat: bool
    is_certain: bool

    @property
    def has_returned(self) -> bool:
        """Whether the agent restarted or came back online."""
        return self.status.online and not (self.row.online and self.row.incarnation == self.status.incarnation)

    @property
    def went_back(self) -> bool:
        """Whether an online agent has an earlier number than before: a resumed snapshot keeps even its incarnation."""
        before, status = self.before, self.status
        if before is None or not status.online:
            return False
        return (status.epoch or 0, status.last_sequence) < (before.epoch or 0, before.last_sequence)

    @property
    def replaces_incarnation(self) -> bool:
        """Whether the agent speaks as another incarnation than before."""
        is_known = self.row.incarnation in (None, self.status.incarnation)
        return self.status.online and not self.is_repeat and not is_known


def record_statuses(
    connection: sa.Connection,
    statuses: Mapping[str, Status],
    now: datetime,
    *,
    repeated: Collection[str],
    believed: bool = False,
) -> RecordedStatuses:
    """Within a transaction, record the status of each of these agents, by name.

    One that is older than the one before changes nothing, and one that may be older only if it is `believed`. Commands
    that an agent had not accepted become due if it restarted or came back online, and commands that it had accepted if
    its store went back in time. Groups in a status replace the ledger's if they differ from those in the status before.
    """
    new, unproven = [], []
    for row in get_or_create_all(connection, list(statuses), now):
        known, status, is_repeat = status_in(row.status), statuses[row.name], row.name in repeated
        standing = standing_of(row, known, status, is_repeat=is_repeat)
        if standing is Standing.NEW or (believed and standing is Standing.UNPROVEN):
            answers = status.answers is not None and status.answers == row.request
            new.append(_Report(row, known, status, is_repeat, answers or believed or status.order is None))
        elif standing is Standing.UNPROVEN:
            unproven.append(row)
    conflicts, doubted = _record(connection, new, now)
    requests = request_reports(connection, [*unproven, *doubted])
    return RecordedStatuses([it.status for it in new], conflicts, list(requests.items()))


def _record(
    connection: sa.Connection, reports: Sequence[_Report], now: datetime
) -> tuple[list[str], list[AgentRecord]]:
    """Record newer statuses; return the agents whose name two clients use, and those whose store may have gone back."""
    changes: dict[str, tuple[Any, ...]] = {}
    conflicts, returned, stands = [], [], []
    for report in reports:
        row, status = report.row, _without_outdated(report.status, report.before)
        if report.before is None:
            decode_or_set_aside(connection, row, "status", Status, now)
        text = encode([status]).decode()
        if report.is_repeat and text == row.status:
            continue
        _note_events(connection, report, status, now)
        may_be_back = report.is_certain or report.has_returned or report.went_back
        if not follow_store(connection, row, status, now) and status.online and may_be_back:
            stands.append(Stand(row, status, report.is_certain))
        if status.groups is not None and status.groups != (report.before.groups if report.before else None):
            set_groups(connection, row.name, status.groups)
        if report.has_returned:
            returned.append(row.name)
        past, came_back = _past_incarnations(connection, report, now)
        if came_back:
            conflicts.append(row.name)
        changes[row.name] = (
            status.online,
            status.incarnation,
            status.store_generation,
            text,
            _spoke_at(status, now) if report.is_repeat else now.timestamp(),
            None if status.answers == row.request else row.request,
            0 if report.has_returned else row.attempts,
            past,
            now.timestamp() if came_back else row.name_conflict_at,
        )
    doubted = resend_after_rollbacks(connection, stands, now)
    if returned:
        requeue(connection, returned)
    if changes:
        connection.execute(_UPDATE, as_rows(changes))
    return conflicts, doubted


def _note_events(connection: sa.Connection, report: _Report, status: Status, now: datetime) -> None:
    row = report.row
    if row.status is None:
        note(connection, EventType.AGENT_FIRST_SEEN, row.name, now=now)
    if (presence := presence_after(row, status)) is not None:
        note(connection, presence, row.name, now=now)
    if (changes := changes_of(report.before, status)) is not None:
        note(connection, EventType.AGENT_CHANGED, row.name, more=changes, now=now)


def _spoke_at(status: Status, now: datetime) -> float:
    """Return when the agent made a status that was delivered later, in seconds since 1970; `now` if it does not say."""
    if status.updated_at is None:
        return now.timestamp()
    return min(now, status.updated_at + timedelta(seconds=status.clock_behind_s or 0)).timestamp()


def _past_incarnations(connection: sa.Connection, report: _Report, now: datetime) -> tuple[str | None, bool]:
    """Return the agent's past incarnations, and whether one came back after a later one: two clients use its name.

    Not every broker reports that a client takes over the session of another (0x8E, MQTT 5 section 3.14.2.1).
    """
    row, incarnation = report.row, report.status.incarnation
    if not report.replaces_incarnation:
        return row.past_incarnations, False
    past = decode_or_set_aside(connection, row, "past_incarnations", list[str], now) or []
    kept = [row.incarnation, *(it for it in past if it not in (row.incarnation, incarnation))][:_MAX_PAST]
    return msgspec.json.encode(kept).decode(), incarnation in past


def _without_outdated(status: Status, before: Status | None) -> Status:
    """Return a last will with the groups, keys, enrolment and journal head of the status before it.

    It may be out of date: it is made before its agent connects.
    """
    if status.online or status.updated_at is not None:
        return status
    heads = [it.audit_head for it in (before, status) if it and it.audit_head]
    head = max(heads, key=lambda mark: mark.number, default=None)
    groups = before.groups if before else None
    version = before.signing_keys_version if before else None
    enrolment = before.enrolment_id if before else None
    return replace(status, groups=groups, signing_keys_version=version, enrolment_id=enrolment, audit_head=head)
