"""The server's memory: every command ever sent, its state and its result."""

import random
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Listing
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from broker.audit_book import AuditBook
from broker.blobs import BlobStore
from broker.contract.codec import decode_commands, encode
from broker.contract.commands import is_secret
from broker.contract.commands.fetch_config import FetchConfigData
from broker.contract.messages import Ack, Command, Feedback, JsonObject, Origin, Sequence, Status
from broker.contract.signing import MAX_SIGNED_FRAME_BYTES, RefusedMessage
from broker.contract.states import ErrorCode, FeedbackKind
from broker.contract.topics import check_agent_name
from broker.database import Database, LedgerError
from broker.groups import GroupBook
from broker.ids import new_id
from broker.ledger_tables import AGENTS, COMMANDS, METADATA, OPERATIONS, SERVER, Cancel, CommandState, new_agent
from broker.operations import Operation, OperationBook
from broker.settlement import command_of, completion, forget_secrets, settle
from broker.stray_results import all_strays, keep_strays
from broker.types_catalogue import parameters_of

__all__ = ["AgentRow", "CommandState", "Ledger", "LedgerError", "LedgerRow", "UnknownCommand", "resend_wait"]

_log = structlog.get_logger("acm.server")
_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 300.0
_AGENTS_AT_ONCE = 1000
_IDS_AT_ONCE = 500
_LONGEST_COMMAND = MAX_SIGNED_FRAME_BYTES - 128  # in bytes; a sequence adds less than that on the wire
_LOST = "The agent lost its command store; the command may have run or not. Look, then send a new one."
_GIVEN_UP = "The command was given up by the user: nothing was heard of its end, and it may have run, or may yet run."
_TOO_LONG = "The command is too long to be signed and was not sent; send a shorter one, or a file with --file."


class UnknownCommand(LedgerError):
    """The ledger has no command with this id."""


@dataclass(frozen=True)
class LedgerRow:
    """One command as the ledger knows it; `result` is the agent's final feedback once it is completed."""

    command: Command
    agent: str
    state: CommandState
    cancel_requested: bool
    result: JsonObject | None
    completed_at: datetime | None


@dataclass(frozen=True)
class AgentRow:
    """One agent: its last status (None if it never spoke), when that came, and how many commands are not completed."""

    name: str
    status: Status | None
    seen_at: datetime | None
    open_commands: int


_OPEN = COMMANDS.c.state != CommandState.COMPLETED
_NEVER_LEFT = COMMANDS.c.state == CommandState.QUEUED
# An acceptance that comes late, or again, takes no command back to an earlier state.
_BEFORE = {
    CommandState.ACCEPTED: [CommandState.QUEUED, CommandState.SENT],
    CommandState.RUNNING: [CommandState.QUEUED, CommandState.SENT, CommandState.ACCEPTED],
}
_STATE_BY_KIND = {FeedbackKind.ACCEPTED: CommandState.ACCEPTED, FeedbackKind.PROGRESS: CommandState.RUNNING}


def _of(agents: Listing[str] | None) -> list[sa.ColumnElement[bool]]:
    return [] if agents is None else [COMMANDS.c.agent.in_(agents)]


def resend_wait(attempts: int) -> float:
    """Return the seconds until commands that were not accepted are sent again: 2, 4 … 300, less up to a half."""
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(attempts, 16))
    return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, no secret


class Ledger:
    """The commands, results and agents below one database URL. Several processes may use the same database.

    The files that commands refer to are in `blobs`; `groups`, `operations` and `audits` are kept beside them.
    Every method is one transaction, committed when it returns. All raise LedgerError when the database fails.
    """

    def __init__(self, url: str, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._database = Database(url, METADATA)
        self._transaction = self._database.transaction
        self.blobs = BlobStore(self._transaction, now)
        self.groups = GroupBook(self._transaction)
        self.operations = OperationBook(self._transaction)
        self.audits = AuditBook(self._transaction, now)

    def close(self) -> None:
        """Give the database connections back."""
        self._database.close()

    # -- what the user asks for

    def add_command(
        self,
        agent: str,
        command_type: str,
        parameters: JsonObject,
        origin: Origin,
        *,
        expires_in_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Command:
        """Append a command with the agent's next sequence number; it is sent by the server's next step.

        Raises InvalidName for a bad agent name, DecodeError for parameters that the agent would refuse to read.
        """
        check_agent_name(agent)
        draft, body = self._draft(command_type, parameters, origin, expires_in_s, timeout_s)
        with self._transaction() as connection:
            return self._append(connection, agent, draft, body)

    def add_operation(
        self,
        agents: Iterable[str],
        target: str,
        command_type: str,
        parameters: JsonObject,
        origin: Origin,
        *,
        expires_in_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Operation:
        """Append one command for each agent, under one operation id; `target` says in words whom it is for.

        All or nothing up to 1,000 agents. More are written in transactions of so many, between which a server can
        work; a LedgerError then says how far it came. Raises as `add_command` does, and then nothing is written.
        """
        names = list(dict.fromkeys(check_agent_name(agent) for agent in agents))
        draft, _ = self._draft(command_type, parameters, origin, expires_in_s, timeout_s)
        operation = Operation(new_id(), command_type, target, len(names), draft.created_at)
        for first in range(0, len(names), _AGENTS_AT_ONCE):
            with _telling_how_far(operation, first), self._transaction() as connection:
                if first == 0:
                    connection.execute(OPERATIONS.insert().values(**_operation_row(operation)))
                self._append_to_all(connection, names[first : first + _AGENTS_AT_ONCE], draft, operation.id)
        return operation

    def request_cancel(self, command_id: str) -> LedgerRow:
        """Ask the agent to cancel the command; nothing changes when it is completed. Raises UnknownCommand."""
        with self._transaction() as connection:
            wanted = COMMANDS.update().where(COMMANDS.c.id == command_id, _OPEN)
            connection.execute(wanted.values(cancel=Cancel.TO_SEND))
            return self._get(connection, command_id)

    def cancel_operation(self, operation_id: str) -> int:
        """Ask for every open command of an operation to be cancelled; return how many. Raises UnknownOperation."""
        self.operations.get(operation_id)
        wanted = COMMANDS.update().where(COMMANDS.c.operation_id == operation_id, _OPEN)
        with self._transaction() as connection:
            return connection.execute(wanted.values(cancel=Cancel.TO_SEND)).rowcount

    def abandon(self, command_id: str) -> LedgerRow:
        """Complete an open command as interrupted, without a word of its agent. Raises UnknownCommand."""
        with self._transaction() as connection:
            self._settle(connection, [COMMANDS.c.id == command_id], ErrorCode.INTERRUPTED, _GIVEN_UP)
            return self._get(connection, command_id)

    def abandon_operation(self, operation_id: str) -> int:
        """Do so for every open command of an operation; return how many. Raises UnknownOperation."""
        self.operations.get(operation_id)
        with self._transaction() as connection:
            ours = [COMMANDS.c.operation_id == operation_id]
            return self._settle(connection, ours, ErrorCode.INTERRUPTED, _GIVEN_UP)

    def get(self, command_id: str) -> LedgerRow:
        """Return one command; raises UnknownCommand."""
        with self._database.reading() as connection:
            return self._get(connection, command_id)

    def commands(
        self,
        agent: str | None = None,
        state: CommandState | None = None,
        operation_id: str | None = None,
        limit: int | None = 1000,
    ) -> list[LedgerRow]:
        """Return the newest commands, newest first; all of them where `limit` is None."""
        query = COMMANDS.select().order_by(COMMANDS.c.created_at.desc(), COMMANDS.c.number.desc()).limit(limit)
        if agent is not None:
            query = query.where(COMMANDS.c.agent == agent)
        if state is not None:
            query = query.where(COMMANDS.c.state == state)
        if operation_id is not None:
            query = query.where(COMMANDS.c.operation_id == operation_id)
        with self._database.reading() as connection:
            return [_ledger_row(row) for row in connection.execute(query)]

    def agents(self) -> list[AgentRow]:
        """Return every agent that was enrolled, spoke or was sent a command, by name."""
        counts = sa.select(COMMANDS.c.agent, sa.func.count()).where(_OPEN).group_by(COMMANDS.c.agent)
        with self._database.reading() as connection:
            waiting: dict[str, int] = {row[0]: row[1] for row in connection.execute(counts)}
            rows = connection.execute(AGENTS.select().order_by(AGENTS.c.name)).all()
        return [AgentRow(row.name, _status(row.status), _moment(row.seen_at), waiting.get(row.name, 0)) for row in rows]

    def agent_names(self) -> list[str]:
        """Return the names of the agents that were enrolled, spoke or were sent a command, in order."""
        with self._database.reading() as connection:
            return list(connection.scalars(sa.select(AGENTS.c.name).order_by(AGENTS.c.name)))

    def last_error_of(self, agent: str) -> str | None:
        """Return what the agent's last status says went wrong, if anything."""
        with self._database.reading() as connection:
            said = _status(connection.scalar(sa.select(AGENTS.c.status).where(AGENTS.c.name == agent)))
        return said.last_error if said else None

    def stray_results(self) -> list[JsonObject]:
        """Return the results that answered no open command, oldest first; of each agent the newest 100 are kept."""
        with self._database.reading() as connection:
            return all_strays(connection)

    # -- what the server sends

    def agents_to_tell(self) -> list[str]:
        """Return the names of the agents for which commands or cancels must be sent now, in order."""
        commands = sa.select(COMMANDS.c.agent).where(COMMANDS.c.to_send.is_(True))
        cancels = sa.select(COMMANDS.c.agent).where(COMMANDS.c.cancel == Cancel.TO_SEND)
        with self._database.reading() as connection:
            return sorted(connection.scalars(commands.union(cancels)))

    def take_due_commands(self, limit: int, among: Listing[str] | None = None) -> list[tuple[str, Command]]:
        """Return (agent, command) of what must be sent now, in sequence for each agent, marked as sent.

        `among`, where it is there, are the only agents that anything is sent to. The mark comes first: a command that
        may be on its way must never be taken for one that never left. A command that no signed frame could hold, from
        before commands were signed, is completed with an error, for all behind it would wait for ever.
        """
        due = COMMANDS.select().where(COMMANDS.c.to_send.is_(True), *_of(among))
        due = due.order_by(COMMANDS.c.agent, COMMANDS.c.epoch, COMMANDS.c.number).limit(limit)
        with self._transaction() as connection:
            rows = [row for row in connection.execute(due).all() if not self._is_too_long(connection, row)]
            if rows:
                self._mark_sent(connection, rows)
        return [(row.agent, command_of(row)) for row in rows]

    def take_due_cancels(self, limit: int, among: Listing[str] | None = None) -> list[tuple[str, str]]:
        """Return (agent, command id) of the cancels that must be sent now, marked as sent; `among` as above."""
        due = sa.select(COMMANDS.c.agent, COMMANDS.c.id).where(COMMANDS.c.cancel == Cancel.TO_SEND, *_of(among))
        with self._transaction() as connection:
            rows = connection.execute(due.order_by(COMMANDS.c.created_at).limit(limit)).all()
            if rows:
                taken = COMMANDS.update().where(COMMANDS.c.id.in_([row.id for row in rows]))
                connection.execute(taken.values(cancel=Cancel.SENT))
                self._schedule(connection, {row.agent for row in rows})
        return [(row.agent, row.id) for row in rows]

    def make_overdue_due(self) -> None:
        """Make what an online agent has not accepted, or not cancelled, in time due again."""
        overdue = sa.select(AGENTS.c.name, AGENTS.c.attempts).where(AGENTS.c.resend_at <= self._now().timestamp())
        with self._transaction() as connection:
            for name, attempts in connection.execute(overdue.where(AGENTS.c.online.is_(True))).all():
                again = self._rewind(connection, name)
                later = self._now().timestamp() + resend_wait(attempts + 1) if again else None
                self._update_agent(connection, name, resend_at=later, attempts=attempts + 1 if again else 0)

    def make_all_due(self) -> None:
        """Make everything that was not accepted due at once, as after a new connection to the broker."""
        with self._transaction() as connection:
            for name in connection.scalars(sa.select(AGENTS.c.name)).all():
                self._rewind(connection, name)
                self._update_agent(connection, name, attempts=0)

    # -- what the agents say

    def record_feedback(self, agent: str, feedbacks: Iterable[Feedback]) -> list[Ack]:
        """Take in feedback of one agent with one commit; return the acks, which may be sent from then on.

        An open command stays open when its message was refused, for the agent may take it with the signatures of the
        next time, or its number, for it gets another: see `_refused_alone`.
        """
        said = list(feedbacks)
        results = [it for it in said if it.kind is FeedbackKind.RESULT and it.command_id and it.digest]
        strays: list[Feedback] = []
        with self._transaction() as connection:
            self._meet(connection, agent)
            digests = self._digests(connection, agent, results)
            refused = [it for it in results if _refused_alone(it) and digests.get(it.command_id or "", "") is None]
            for feedback in said:
                if feedback in refused:
                    self._renumber(connection, agent, feedback)
                elif feedback.kind is FeedbackKind.RESULT:
                    strays += self._record_result(connection, agent, feedback, digests)
                elif feedback.kind is FeedbackKind.GAP:
                    self._close_gap(connection, agent, feedback)
                elif feedback.command_id is not None:
                    self._record_state(connection, agent, feedback.command_id, _STATE_BY_KIND[feedback.kind])
            for stray in keep_strays(connection, agent, strays, self._now().timestamp()):
                self._answer_question(connection, agent, stray)
        for feedback in refused:
            _log.warning("message_refused_by_agent", agent=agent, command_id=feedback.command_id, code=feedback.code)
        return [Ack(it.command_id or "", it.digest or "") for it in results if it not in refused]

    def record_status(self, status: Status) -> None:
        """Keep an agent's status. A new incarnation, or one that is back, makes what it did not accept due at once.

        Groups that the agent says it is in, other than those it said before, replace the ledger's.
        """
        with self._transaction() as connection:
            before = self._meet(connection, status.agent)
            if not status.online:  # a last will was written when the process began, and may tell what is old
                status = _without_old_news(status, _status(before.status))
            self._notice_generation(connection, status)
            self._notice_sequence(connection, status)
            if status.groups is not None and status.groups != _groups_in(before.status):
                self.groups.set_groups(connection, status.agent, status.groups)
            returned = status.online and not (before.online and before.incarnation == status.incarnation)
            if returned:
                self._rewind(connection, status.agent)
            self._update_agent(
                connection,
                status.agent,
                online=status.online,
                incarnation=status.incarnation,
                status=encode([status]).decode(),
                seen_at=self._now().timestamp(),
                attempts=0 if returned else before.attempts,
            )

    # -- inside one transaction

    def _meet(self, connection: sa.Connection, agent: str) -> Any:
        """Return the agent's row, made when it is not there, locked until the commit."""
        found = AGENTS.select().where(AGENTS.c.name == agent).with_for_update()
        row = connection.execute(found).one_or_none()
        if row is None:
            connection.execute(AGENTS.insert().values(**new_agent(agent, self._now())))
            row = connection.execute(found).one()
        return row

    def _meet_all(self, connection: sa.Connection, agents: Listing[str]) -> Listing[Any]:
        """Return the rows of these agents, made where they are not there, locked until the commit."""
        found = AGENTS.select().where(AGENTS.c.name.in_(agents)).order_by(AGENTS.c.name).with_for_update()
        rows = connection.execute(found).all()
        new = sorted(set(agents) - {row.name for row in rows})
        if not new:
            return rows
        connection.execute(AGENTS.insert(), [new_agent(name, self._now()) for name in new])
        return connection.execute(found).all()

    def _epoch_above(self, least: int) -> int:
        return max(int(self._now().timestamp() * 1000), least + 1)

    def _next_sequence(self, connection: sa.Connection, agent: str) -> Sequence:
        row = self._meet(connection, agent)
        self._update_agent(connection, agent, next_number=row.next_number + 1)
        return Sequence(row.epoch, row.next_number)

    def _draft(
        self,
        command_type: str,
        parameters: JsonObject,
        origin: Origin,
        expires_in_s: float | None,
        timeout_s: float | None,
    ) -> tuple[Command, bytes]:
        """Return a command without a number, and encoded; raises DecodeError if an agent would refuse to read it."""
        created_at = self._now()
        expires_at = None if expires_in_s is None else created_at + timedelta(seconds=expires_in_s)
        draft = Command(new_id(), command_type, parameters, origin, created_at, expires_at, timeout_s)
        body = encode([draft])
        decode_commands(body, received_at=created_at, new_id=new_id, max_bytes=_LONGEST_COMMAND)
        return draft, body

    def _append(self, connection: sa.Connection, agent: str, draft: Command, body: bytes) -> Command:
        sequence = self._next_sequence(connection, agent)
        connection.execute(COMMANDS.insert().values(**self._new_row(draft, agent, sequence, body)))
        return replace(draft, sequence=sequence)

    def _append_to_all(
        self, connection: sa.Connection, agents: Listing[str], draft: Command, operation_id: str
    ) -> None:
        commands = []
        for agent in self._meet_all(connection, agents):
            own = replace(draft, id=new_id())
            row = self._new_row(own, agent.name, Sequence(agent.epoch, agent.next_number), encode([own]))
            commands.append({**row, "operation_id": operation_id})
        connection.execute(COMMANDS.insert(), commands)
        numbered = AGENTS.update().where(AGENTS.c.name.in_(agents))
        connection.execute(numbered.values(next_number=AGENTS.c.next_number + 1))

    @staticmethod
    def _new_row(command: Command, agent: str, sequence: Sequence, body: bytes) -> dict[str, Any]:
        return {
            "id": command.id,
            "agent": agent,
            "epoch": sequence.epoch,
            "number": sequence.number,
            "body": body.decode(),
            "state": CommandState.QUEUED,
            "to_send": True,
            "cancel": Cancel.NO,
            "created_at": command.created_at.timestamp(),
        }

    @staticmethod
    def _update_agent(connection: sa.Connection, agent: str, **values: Any) -> None:
        connection.execute(AGENTS.update().where(AGENTS.c.name == agent).values(**values))

    def _get(self, connection: sa.Connection, command_id: str) -> LedgerRow:
        row = connection.execute(COMMANDS.select().where(COMMANDS.c.id == command_id)).one_or_none()
        if row is None:
            raise UnknownCommand(f"No command has the id {command_id[:128]!r}; `acm commands` lists them.")
        return _ledger_row(row)

    def _mark_sent(self, connection: sa.Connection, rows: Listing[Any]) -> None:
        ids = COMMANDS.c.id.in_([row.id for row in rows])
        connection.execute(COMMANDS.update().where(ids).values(to_send=False))
        queued = COMMANDS.update().where(ids, COMMANDS.c.state == CommandState.QUEUED)
        connection.execute(queued.values(state=CommandState.SENT))
        self._schedule(connection, {row.agent for row in rows})

    def _is_too_long(self, connection: sa.Connection, row: Any) -> bool:
        too_long = len(row.body.encode()) > _LONGEST_COMMAND
        if too_long:
            settle(connection, row, ErrorCode.INVALID, _TOO_LONG, self._now())
        return too_long

    def _schedule(self, connection: sa.Connection, agents: Iterable[str]) -> None:
        now = self._now().timestamp()
        due = [
            {"agent": row.name, "resend_at": now + resend_wait(row.attempts)}
            for row in self._meet_all(connection, sorted(agents))
        ]
        connection.execute(AGENTS.update().where(AGENTS.c.name == sa.bindparam("agent")), due)

    @staticmethod
    def _rewind(connection: sa.Connection, agent: str) -> bool:
        """Make unaccepted commands and unanswered cancels due; say whether there are any."""
        unaccepted = COMMANDS.update().where(COMMANDS.c.agent == agent, COMMANDS.c.state == CommandState.SENT)
        unanswered = COMMANDS.update().where(COMMANDS.c.agent == agent, _OPEN, COMMANDS.c.cancel == Cancel.SENT)
        commands = connection.execute(unaccepted.values(to_send=True)).rowcount
        cancels = connection.execute(unanswered.values(cancel=Cancel.TO_SEND)).rowcount
        return commands + cancels > 0

    def _record_state(self, connection: sa.Connection, agent: str, command_id: str, state: CommandState) -> None:
        ours = COMMANDS.update().where(COMMANDS.c.id == command_id, COMMANDS.c.agent == agent)
        advanced = ours.where(COMMANDS.c.state.in_(_BEFORE[state])).values(state=state, to_send=False)
        if connection.execute(advanced).rowcount:
            self._update_agent(connection, agent, attempts=0)

    @staticmethod
    def _digests(connection: sa.Connection, agent: str, results: Listing[Feedback]) -> dict[str, str | None]:
        """Return the digests of these commands' results by id, None for an open one; others are not ours."""
        digests: dict[str, str | None] = {}
        ids = [result.command_id for result in results]
        for first in range(0, len(ids), _IDS_AT_ONCE):
            named = COMMANDS.c.id.in_(ids[first : first + _IDS_AT_ONCE])
            query = sa.select(COMMANDS.c.id, COMMANDS.c.digest).where(COMMANDS.c.agent == agent, named)
            digests |= {row.id: row.digest for row in connection.execute(query)}
        return digests

    def _record_result(
        self, connection: sa.Connection, agent: str, result: Feedback, digests: dict[str, str | None]
    ) -> list[Feedback]:
        """Complete the command; return the result if it answers no open one and is another than the one there."""
        name, digest = result.command_id, result.digest
        if name is None or digest is None or digests.get(name) == digest:
            return []
        if name not in digests or digests[name] is not None:
            return [result]
        open_command = COMMANDS.update().where(COMMANDS.c.id == name, _OPEN)
        values = completion(result, digest, self._now())
        if connection.execute(open_command.values(**values)).rowcount == 0:
            return [result]
        digests[name] = digest
        if _may_name_a_secret(result.command):
            forget_secrets(connection, name)
        self._answer_question(connection, agent, result)
        return []

    def _answer_question(self, connection: sa.Connection, agent: str, result: Feedback) -> None:
        if result.data and result.data.get("asks_for") == FetchConfigData().asks_for:
            self._send_group_configuration(connection, agent)

    def _send_group_configuration(self, connection: sa.Connection, agent: str) -> None:
        """Answer fetch-config by a command, unless the same one is on its way already."""
        found = self.groups.configuration_for(connection, agent)
        if found is None:
            return
        group, artifact = found
        on_its_way = COMMANDS.select().where(COMMANDS.c.agent == agent, _OPEN)
        on_its_way = on_its_way.where(COMMANDS.c.body.contains(f'"{artifact.url}"', autoescape=True)).limit(1)
        if connection.execute(on_its_way).one_or_none() is None:
            parameters = {"artifact": msgspec.to_builtins(artifact), "group": group}
            origin = Origin(f"group {group}", SERVER)
            draft, body = self._draft("apply-centralized-configuration", parameters, origin, None, None)
            self._append(connection, agent, draft, body)

    def _close_gap(self, connection: sa.Connection, agent: str, gap: Feedback) -> None:
        row = self._meet(connection, agent)
        known = row.store_generation in (None, gap.store_generation)
        if not known or gap.sequence is None or gap.expected is None or gap.sequence.epoch != row.epoch:
            return  # the status that announces the new store begins a new epoch
        ours = (COMMANDS.c.agent == agent, COMMANDS.c.epoch == row.epoch)
        asked = sa.select(COMMANDS.c.state).where(*ours, COMMANDS.c.number == gap.expected)
        if connection.scalar(asked) == CommandState.COMPLETED:
            # The agent went back, as after a restored snapshot: this number can never be sent again.
            self._begin_epoch(connection, agent, above=row.epoch)
        else:
            from_there = COMMANDS.update().where(*ours, COMMANDS.c.number >= gap.expected, _OPEN)
            connection.execute(from_there.values(to_send=True))

    def _notice_generation(self, connection: sa.Connection, status: Status) -> None:
        """Settle what an agent may have held in a store that it has lost, and begin a new epoch."""
        row, agent, generation = self._meet(connection, status.agent), status.agent, status.store_generation
        closed = status.closed_epoch or 0
        if row.store_generation not in (None, generation) or closed >= row.epoch:
            self._settle_lost(connection, agent)
            self._begin_epoch(connection, agent, above=max(row.epoch, closed))
        self._update_agent(connection, agent, store_generation=generation)

    def _notice_sequence(self, connection: sa.Connection, status: Status) -> None:
        """Begin a new epoch when the agent has seen numbers that this ledger, restored from a backup, has not."""
        row = self._meet(connection, status.agent)
        if status.epoch is not None and (status.epoch, status.last_sequence) >= (row.epoch, row.next_number):
            self._begin_epoch(connection, status.agent, above=max(row.epoch, status.epoch))

    def _renumber(self, connection: sa.Connection, agent: str, refusal: Feedback) -> None:
        """Begin a new epoch when the agent has seen the number of an open command as that of another.

        It does so before its status tells of it, as when the ledger was restored from a backup a moment ago.
        """
        row = self._meet(connection, agent)
        present = refusal.sequence is None or refusal.sequence.epoch == row.epoch
        if refusal.code is ErrorCode.SUPERSEDED and present:
            self._begin_epoch(connection, agent, above=row.epoch)

    def _begin_epoch(self, connection: sa.Connection, agent: str, above: int) -> None:
        """Number the open commands anew from 1, in their order, and make them due."""
        epoch = self._epoch_above(above)
        waiting = sa.select(COMMANDS.c.id).where(COMMANDS.c.agent == agent, _OPEN)
        ids = connection.scalars(waiting.order_by(COMMANDS.c.epoch, COMMANDS.c.number)).all()
        for number, command_id in enumerate(ids, start=1):
            moved = COMMANDS.update().where(COMMANDS.c.id == command_id)
            connection.execute(moved.values(epoch=epoch, number=number, to_send=True))
        self._update_agent(connection, agent, epoch=epoch, next_number=len(ids) + 1)

    def _settle_lost(self, connection: sa.Connection, agent: str) -> None:
        """Complete what the agent may have received before it lost its store: nobody can know what became of it."""
        self._settle(connection, [COMMANDS.c.agent == agent, ~_NEVER_LEFT], ErrorCode.INTERRUPTED, _LOST)

    def _settle(
        self, connection: sa.Connection, which: Listing[sa.ColumnElement[bool]], code: ErrorCode, message: str
    ) -> int:
        rows = connection.execute(COMMANDS.select().where(_OPEN, *which)).all()
        for row in rows:
            settle(connection, row, code, message, self._now())
        return len(rows)


def _may_name_a_secret(echo: JsonObject | None) -> bool:
    """Whether a command, as its result echoes it, may have held a secret; without an echo it may."""
    if echo is None:
        return True
    command_type, parameters = echo.get("type"), echo.get("parameters")
    if not isinstance(command_type, str) or not isinstance(parameters, dict):
        return True
    shape = parameters_of(command_type)
    return any(is_secret(command_type, name, shape) for name in parameters)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _status(text: str | None) -> Status | None:
    return None if text is None else msgspec.json.decode(text, type=Status)


def _refused_alone(result: Feedback) -> bool:
    """Whether a result is about a command's message or number alone, and not about the command."""
    said = result.data or {}
    message = result.code is ErrorCode.REJECTED and said.get("refused") == RefusedMessage().refused
    return message or result.code is ErrorCode.SUPERSEDED


def _without_old_news(will: Status, before: Status | None) -> Status:
    """A last will was written when the process began, and may tell of old groups, keys, enrolments and journals."""
    heads = [status.audit_head for status in (before, will) if status and status.audit_head]
    head = max(heads, key=lambda mark: mark.number, default=None)
    groups = before.groups if before else None
    version = before.signing_keys_version if before else None
    enrolment = before.enrolment_id if before else None
    return replace(will, groups=groups, signing_keys_version=version, enrolment_id=enrolment, audit_head=head)


def _groups_in(status: str | None) -> tuple[str, ...] | None:
    known = _status(status)
    return known.groups if known else None


def _ledger_row(row: Any) -> LedgerRow:
    result = None if row.result is None else msgspec.json.decode(row.result)
    cancelling = row.cancel != Cancel.NO
    return LedgerRow(command_of(row), row.agent, CommandState(row.state), cancelling, result, _moment(row.completed_at))


@contextmanager
def _telling_how_far(operation: Operation, written: int) -> Iterator[None]:
    try:
        yield
    except LedgerError as error:
        if not written:
            raise
        raise LedgerError(
            f"{error} {written} of {operation.size} commands were written before, as operation {operation.id}."
        ) from error


def _operation_row(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "type": operation.command_type,
        "target": operation.target,
        "size": operation.size,
        "created_at": operation.created_at.timestamp(),
    }
