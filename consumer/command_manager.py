"""Moves each command through pending, processing, done and deleted, one at a time and in order of arrival."""

from collections.abc import Sequence as Listing
from datetime import datetime, timedelta

import structlog

from broker.contract.messages import Ack, Control, Feedback
from broker.contract.states import ErrorCode
from consumer.executor import Executor, Finished
from consumer.feedback import FeedbackOutbox
from consumer.handlers.base import AgentRestart, Handler, Interruption, Result
from consumer.ports import Clock, CommandStore, StoredCommand
from consumer.reports import Reports

__all__ = ["TOMBSTONE_LIFE", "CommandManager"]

_log = structlog.get_logger(__name__)
_GROUP = 64
TOMBSTONE_LIFE = timedelta(days=8)  # outlives the broker's session expiry of 7 days


class CommandManager:
    """The only one that changes a stored command. Owns no thread: `step` does what can be done now."""

    def __init__(
        self,
        store: CommandStore,
        executor: Executor,
        outbox: FeedbackOutbox,
        reports: Reports,
        clock: Clock,
        handlers: dict[str, Handler],
    ) -> None:
        self._store = store
        self._executor = executor
        self._outbox = outbox
        self._reports = reports
        self._clock = clock
        self._handlers = handlers
        self.restart_for: str | None = None

    def recover(self) -> None:
        """Settle what an earlier process left in processing, by each handler's rule; call once, before `step`."""
        again: list[StoredCommand] = []
        with self._store.transaction():
            for stored in self._store.in_processing():
                handler = self._handlers.get(stored.command.type)
                if handler is not None and handler.interruption is Interruption.RERUN:
                    again.append(stored)
                else:
                    self._complete(stored, self._after_crash(stored, handler))
        self._outbox.load()
        if again:
            self._executor.execute(again)

    def _after_crash(self, stored: StoredCommand, handler: Handler | None) -> Result:
        _log.warning("command_interrupted", command_id=stored.command.id, type=stored.command.type)
        if handler is not None and handler.interruption is Interruption.PROBE:
            return self._executor.probe(stored)
        return Result(
            "The agent died while the command ran; it may have had part of its effect and was not run again.",
            code=ErrorCode.INTERRUPTED,
        )

    def step(self) -> None:
        """Commit what has ended together with what begins, then begin it."""
        finished = self._executor.fetch()
        idle = not self._executor.busy and self.restart_for is None
        if not finished and not (idle and self._store.get_next_command()):
            return
        results: list[StoredCommand] = []
        with self._store.transaction():
            results += [done for item in finished if (done := self._finish(item))]
            batch = self._begin_next(results) if idle and self.restart_for is None else []
        for stored in results:
            self._outbox.add(stored)
        if batch:
            self._executor.execute(batch)
            self._outbox.tell_begun(self._reports.begun(batch[0].command))

    def _finish(self, item: Finished) -> StoredCommand | None:
        if isinstance(item.result, AgentRestart):
            self.restart_for = item.stored.command.id
            return None
        return self._complete(item.stored, item.result, item.finished_at)

    def _begin_next(self, results: list[StoredCommand]) -> list[StoredCommand]:
        batch: list[StoredCommand] = []
        for stored in self._store.get_next_commands(_GROUP):
            unfit = self._unfit(stored)
            if unfit is not None:
                results.append(self._complete(stored, unfit))
                continue
            shares = self._executor.may_share_commit(stored)
            if batch and not shares:
                break
            batch.append(self._store.mark_processing(stored.key, self._clock.now(), self._reports.incarnation))
            if not shares:
                break
        return batch

    def _unfit(self, stored: StoredCommand) -> Result | None:
        command = stored.command
        if self._store.is_cancelled(command.id):
            return Result("The command was cancelled before it began.", code=ErrorCode.CANCELLED)
        if command.expires_at is not None and command.expires_at <= self._clock.now():
            return Result(f"The command expired at {command.expires_at:%Y-%m-%d %H:%M:%S} UTC.", code=ErrorCode.EXPIRED)
        if not self._executor.supports(command.type):
            names = ", ".join(sorted(self._handlers))
            return Result(
                f"This agent does not support {command.type!r}; it supports: {names}.",
                code=ErrorCode.UNSUPPORTED,
            )
        return None

    def _complete(self, stored: StoredCommand, result: Result, at: datetime | None = None) -> StoredCommand:
        feedback = self._reports.result(stored.command, result, at or self._clock.now(), stored.started_at)
        return self._store.mark_completed(stored.key, feedback)

    def control(self, controls: Listing[Control]) -> list[Feedback]:
        """Cancel commands: a running one is told to end, a queued or not yet arrived one is remembered as cancelled.

        Returns what is known of the commands that are already done, so that the server hears of it again.
        """
        answers: list[Feedback] = []
        with self._store.transaction():
            for control in controls:
                answers += self._cancel(control.command_id)
        return answers

    def _cancel(self, command_id: str) -> list[Feedback]:
        stored = self._store.find(command_id)
        tombstone = self._store.find_tombstone(command_id)
        result = (stored and stored.result) or (tombstone and tombstone.result)
        if result:
            return [result]
        if not self._executor.cancel(command_id):
            self._store.remember_cancel(command_id, self._clock.now() + TOMBSTONE_LIFE)
        return []

    def acknowledge(self, acks: Listing[Ack]) -> None:
        """Delete the commands whose results the server has committed, keeping tombstones."""
        keys = self._outbox.acknowledged(acks)
        if keys:
            self._store.delete_completed_commands(keys, self._clock.now() + TOMBSTONE_LIFE)
