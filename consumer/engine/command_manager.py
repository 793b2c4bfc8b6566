"""The states of each command: pending, processing, done, deleted; one command at a time, in order of arrival."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import msgspec
import structlog

from broker.contract.messages import Ack
from broker.contract.states import ErrorCode
from consumer.engine.executor import Executor, Finished
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.outbox import FeedbackOutbox
from consumer.engine.process_renewal import ProcessRenewal
from consumer.engine.start_check import StartCheck, not_run_again
from consumer.handler import AgentRestart, Interruption, Replacement, Result
from consumer.ports import Clock, CommandStore, EncodedFeedback, StoredCommand
from consumer.trust.refusal import Refusal

__all__ = [
    "TOMBSTONE_LIFE",
    "CommandManager",
    "Decisions",
    "Departure",
]


_log = structlog.get_logger(__name__)
_GROUP = 500  # as many as a frame of results has; design.md: "Commands that are safe to repeat begin in groups"
# design.md: "A deleted command is remembered for a year"
TOMBSTONE_LIFE = timedelta(days=365)
_CANCEL_LIFE = timedelta(days=8)  # outlives the broker's session expiry of 7 days
_INTERRUPTED = Result(
    "The agent died while the command ran; it may have had part of its effect and was not run again.",
    code=ErrorCode.INTERRUPTED,
)


def _interrupted(damage: str, what: str) -> Result:
    return Result(f"{damage} {what}", code=ErrorCode.INTERRUPTED)


class Decisions(msgspec.Struct, frozen=True):
    """What one step does once it is committed: answers to send, results to send until acked, commands to begin."""

    answers: list[EncodedFeedback]
    results: list[StoredCommand]
    acknowledged: list[str]
    batch: list[StoredCommand]
    replacement: Replacement | None


class Departure(Protocol):
    """A change to another enrolment: whether commands must wait for it, or must be refused because of it."""

    @property
    def holds(self) -> bool:
        """Whether no command may begin: this process is about to be replaced."""

    @property
    def refusal(self) -> Refusal | None:
        """Why commands that have not begun must be refused; None if they may begin."""


class CommandManager:
    """The only class that changes stored commands. Owns no thread: `decide` and `carry_out` do the work that is due.

    Once `replacement` is set, a command has requested a new process, or a handler that was cut off makes one necessary,
    and no command begins. The latter only with a `renewal`.
    """

    def __init__(
        self,
        store: CommandStore,
        executor: Executor,
        outbox: FeedbackOutbox,
        feedback: FeedbackFactory,
        clock: Clock,
        departure: Departure,
        *,
        start_check: StartCheck,
        renewal: ProcessRenewal | None = None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._outbox = outbox
        self._feedback = feedback
        self._clock = clock
        self._departure = departure
        self._start_check = start_check
        self._renewal = renewal
        self._ended: list[Finished] = []
        self.replacement: Replacement | None = None

    def recover(self, restarted_by: str | None = None) -> Sequence[StoredCommand]:
        """Complete or resume the commands that an earlier process left in processing; call it once, first.

        `restarted_by` is the id of the one that replaced the process: it is where it wanted to be. Returns those that
        are completed by it.
        """
        again: list[StoredCommand] = []
        ended: list[StoredCommand] = []
        with self._store.transaction():
            for stored in self._store.with_results():
                if stored.damage is not None:
                    self._restore(stored)
            for stored in self._store.in_processing():
                if stored.command.id != restarted_by:
                    _log.warning("command_interrupted", command_id=stored.command.id, type=stored.command.type)
                handler = self._executor.handlers.get(stored.command.type)
                unfit = self._check(stored)
                if stored.damage is not None:
                    damaged = _interrupted(stored.damage, "It may have run, and was not run again.")
                    ended.append(self._complete(stored, damaged))
                elif handler is None or handler.interruption is Interruption.REPORT:
                    ended.append(self._complete(stored, _INTERRUPTED))
                elif unfit is not None and handler.interruption is Interruption.RERUN:
                    ended.append(self._complete(stored, not_run_again(unfit)))
                else:
                    self._store.mark_resumed(stored, self._feedback.incarnation)
                    again.append(stored)
        self._outbox.load()
        if again:
            self._executor.execute(again)
        return ended

    def _restore(self, stored: StoredCommand) -> StoredCommand:
        """Replace a result that the disk has altered by what the journal has of it, or by an error."""
        assert stored.damage is not None
        reported = self._store.find_reported(stored.command.id)
        if reported is not None:
            result = self._feedback.remembered(reported)
        else:
            lost = _interrupted(stored.damage, "It has ended, and its result is lost.")
            result = self._feedback.result_of(stored, lost, self._clock.now())
        return self._store.restore_result(stored, result)

    def decide(self, acks: Sequence[Ack], cancels: Sequence[str]) -> Decisions:
        """Apply acks, cancels (ids of commands) and ended handlers to the store, and mark what begins next.

        Call it inside a transaction, and `carry_out` once that is committed. If the commit fails, nothing is lost:
        call it again. Raises StoreError and StoreFull.
        """
        self._ended += self._executor.take_finished()
        acknowledged = self._outbox.acknowledged_by(acks)
        self._store.delete_completed_commands(acknowledged, self._clock.now() + TOMBSTONE_LIFE)
        answers = [answer for command_id in cancels for answer in self._cancel(command_id)]
        wanted: Replacement | None = None
        unreadable = [self._store.find(command_id) for command_id in sorted(self._outbox.unreadable)]
        results = [self._restore(stored) for stored in unreadable if stored is not None and stored.damage is not None]
        for end in self._ended:
            if isinstance(end.result, AgentRestart):
                wanted = Replacement(end.stored.command.id, end.result.program)
            else:
                results.append(self._store.mark_completed(end.stored, end.result))
        stays = wanted is None and self.replacement is None and not self._departure.holds
        idle = not self._executor.busy and stays
        batch = self._begin_next(results) if idle else []
        if self._renewal is not None and idle and not batch and not self._store.pending_count():
            wanted = self._renewal.replacement_for(self._executor.cut_off)
        return Decisions(answers, results, acknowledged, batch, wanted)

    def carry_out(self, decisions: Decisions) -> None:
        """Start the commands committed as processing, and queue the feedback."""
        self._ended.clear()
        self.replacement = self.replacement or decisions.replacement
        if decisions.batch:
            self._executor.execute(decisions.batch)
            self._outbox.add_notices([self._feedback.progress(decisions.batch[0].command.id)])
        self._outbox.remove(decisions.acknowledged)
        self._outbox.unreadable.clear()
        for stored in decisions.results:
            self._outbox.add_result(stored)
        self._outbox.add_notices(decisions.answers)

    def _begin_next(self, results: list[StoredCommand]) -> list[StoredCommand]:
        batch: list[StoredCommand] = []
        now = self._clock.now()
        for stored in self._store.get_next_commands(_GROUP):
            failed = self._check(stored)
            if failed is not None:
                results.append(self._complete(stored, failed))
                continue
            shares = self._executor.may_share_commit(stored)
            if batch and not shares:
                break
            batch.append(self._store.mark_processing(stored, now, self._feedback.incarnation))
            if not shares:
                break
        return batch

    def _check(self, stored: StoredCommand) -> Result | None:
        command = stored.command
        if stored.damage is not None:
            return _interrupted(stored.damage, "It was not run: send it again.")
        if self._departure.refusal is not None:
            return Result(self._departure.refusal.message, code=ErrorCode.REJECTED)
        failed = self._start_check.unfit(stored, was_cancelled=self._store.is_cancelled(command.id))
        if failed is not None:
            return failed
        if command.type not in self._executor.handlers:
            names = ", ".join(sorted(self._executor.handlers))
            return Result(
                f"This agent does not support {command.type!r}; it supports: {names}.",
                code=ErrorCode.UNSUPPORTED,
            )
        return None

    def _complete(self, stored: StoredCommand, result: Result) -> StoredCommand:
        return self._store.mark_completed(stored, self._feedback.result_of(stored, result, self._clock.now()))

    def _cancel(self, command_id: str) -> list[EncodedFeedback]:
        """Cancel a running command, and store the cancel: for one that waits or has not arrived, or for a next process.

        Returns the result of a command that is done, so that it is sent again.
        """
        stored = self._store.find(command_id)
        if stored is not None and stored.result is not None:
            return [stored.result]
        tombstone = self._store.find_tombstone(command_id)
        if tombstone is not None:
            return [self._feedback.remembered(tombstone)]
        self._store.remember_cancel(command_id, self._clock.now() + _CANCEL_LIFE)
        self._executor.cancel(command_id)
        return []
