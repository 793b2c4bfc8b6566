"""Applies a centralized configuration, step by step; after a crash at any step, the old or the new one is complete.

Before the swap of the link the old generation is active, after it the new one. An update that crashed before the swap
is discarded; after the swap, the reload and the health watch are repeated, and their outcome decides.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog
from msgspec.structs import replace

from broker.contract.commands.apply_centralized_configuration import ApplyCentralizedConfiguration
from broker.contract.messages import Command, Output
from broker.contract.states import ErrorCode
from broker.system.files import inodes_named
from broker.system.lock import locked
from consumer.configuration import results
from consumer.configuration.apply_journal import ApplyJournal, JournalFile
from consumer.configuration.effects import Effects
from consumer.configuration.generations import Generations, Record
from consumer.configuration.preparation import active_if_unchanged, prepare
from consumer.configuration.reload import Reloader
from consumer.configuration.staging import Staging
from consumer.configuration.validation import CheckFailed
from consumer.errors import CentralizedConfigurationError, ConsumerError, ProgramError, ServiceUnreachable
from consumer.handler import Context, Result
from consumer.settings import AgentConfig
from consumer.system.programs import Bounds

__all__ = [
    "ConfigurationUpdate",
]


_log = structlog.get_logger(__name__)
_RELOADED = "The service was reloaded and is healthy."
_STOP_GRACE_S = 0.5  # systemd stops the agent and its service together, and the agent may be notified second
_STOPPED = "The service does not run; it reads the configuration when it starts."


class ConfigurationUpdate:
    """One command's update of the configuration. Call `apply`, or `resume` after a crash; both return the command's
    result."""

    def __init__(self, command: Command, context: Context, config: AgentConfig, effects: Effects | None = None) -> None:
        self._command = command
        self._context = context
        self._config = config
        self._root = config.configuration_root
        self._generations = Generations(self._root)
        self._journals = JournalFile(self._root / "journal.json")
        self._effects = effects or Effects()
        self._journal: ApplyJournal | None = None
        self._output: Output | None = None

    def apply(self, wanted: ApplyCentralizedConfiguration) -> Result:
        """Activate the wanted configuration, or keep the current one."""
        try:
            with self._exclusive():
                record = active_if_unchanged(wanted, self._config, self._generations)
                if record is not None:
                    return self._unchanged(wanted, record, self._journals.unchecked(record.name))
                self._journal = prepare(
                    self._command, wanted, self._context, self._config, self._generations, self._effects
                )
                self._journals.write(self._journal)
                # design.md: "A centralized configuration is a generation"
                self._generations.activate(self._journal.next)
                self._reached("swapped")
                return self._reload_and_watch(self._journal)
        except ConsumerError as error:
            return self._failed(error)

    def resume(self) -> Result:
        """Complete an update that was interrupted by a crash."""
        try:
            with self._exclusive():
                self._journal = journal = self._journals.read(self._command.id)
                if journal is not None and journal.done:
                    return results.ended(self._generations, journal, self._output)
                if journal is not None and journal.reason is not None:
                    return self._roll_back(journal)
                if journal is not None and self._generations.current == journal.next:
                    return self._reload_and_watch(journal)
                self._clean_up()
        except ConsumerError as error:
            return self._failed(error)
        return results.not_applied(
            self._generations, "The agent died before the configuration became active.", ErrorCode.INTERRUPTED
        )

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the directory's lock, and turn errors of the disk into errors for the user."""
        try:
            with inodes_named(self._root.parent):
                self._generations.make_directories()
                with locked(self._root / "lock"):
                    yield
        except BlockingIOError as error:
            raise CentralizedConfigurationError(
                f"Another configuration is being applied in {self._root}.", code="apply_running"
            ) from error
        except OSError as error:
            where = error.filename or self._root
            raise CentralizedConfigurationError(f"{where} cannot be used: {error.strerror or error}.") from error

    def _reload_and_watch(self, journal: ApplyJournal) -> Result:
        """Reload the service and watch it; half of the remaining time is reserved for a rollback."""
        context = self._context
        now = context.clock.monotonic()
        within = dataclasses.replace(context.bounds(), deadline=now + (context.deadline - now) / 2)
        reloader = self._reloader(journal.next, within)
        incarnation, note = journal.incarnation, _STOPPED
        try:
            state = reloader.reload(journal.incarnation)
            incarnation = state.incarnation
            self._reached("reloaded")
            if state.running or state.kind == "none":
                reloader.watch(state)
                note = _RELOADED if self._config.configuration.reload != "none" else ""
        except (ConsumerError, OSError) as error:
            self._keep_output(error)
            self._raise_if_stopping()
            if self._is_unknown(error):
                raise
            code = ErrorCode.CANCELLED if context.cancelled.is_set() else ErrorCode.FAILED
            return self._roll_back(replace(journal, incarnation=incarnation, reason=str(error), code=code))
        self._reached("checked")
        return self._complete(replace(journal, note=note))

    def _is_unknown(self, error: Exception) -> bool:
        """Whether it is not known if the service runs well: what reloads or checks it failed, and not the service.

        A program that comes with the configuration is part of it.
        """
        if isinstance(error, ServiceUnreachable):
            return True
        settings = self._config.configuration
        programs = [argv[0] for argv in (settings.reload_command, settings.health_check) if argv]
        comes_along = any("{" in path or Path(path).is_relative_to(self._root) for path in programs)
        return isinstance(error, ProgramError) and not (error.code == "not_started" and comes_along)

    def _raise_if_stopping(self) -> None:
        """Raise if the agent is being stopped: its service may be too, so the next process resumes the update."""
        if self._effects.wait(self._context.stopping, _STOP_GRACE_S):
            raise CentralizedConfigurationError(
                "The agent was stopped before the service had proved healthy.", code="agent_stopped"
            )

    def _roll_back(self, journal: ApplyJournal) -> Result:
        """Reactivate the previous generation, or none, and reload the service."""
        self._save_journal(journal)
        if journal.foreign is not None:
            self._generations.restore(journal.foreign)
        else:
            self._generations.activate(journal.previous)
        self._reached("rolled_back")
        uncancelled = dataclasses.replace(self._context.bounds(), cancelled=threading.Event())
        reloader = self._reloader(journal.previous, uncancelled)
        note = ""
        try:
            state = reloader.reload(journal.incarnation)
            if (journal.previous or journal.foreign) and (state.running or state.kind == "none"):
                reloader.watch(state)
        except (ConsumerError, OSError) as error:
            note = f"The service is not healthy with the previous generation either: {error}"
            if self._is_unknown(error):
                note = f"Whether the service is healthy with the previous generation is not known: {error}"
        return self._complete(replace(journal, note=note))

    def _reloader(self, name: str | None, within: Bounds) -> Reloader:
        settings, record = self._config.configuration, self._generations.record(name)
        file = record.file if record else settings.file
        return Reloader(settings, self._context.service, self._generations.link, file, within, self._effects)

    def _complete(self, journal: ApplyJournal) -> Result:
        self._save_journal(replace(journal, done=True))
        with contextlib.suppress(OSError):  # the next update removes leftovers
            self._clean_up()
        return results.ended(self._generations, journal, self._output)

    def _save_journal(self, journal: ApplyJournal) -> None:
        """Write the journal if possible: without it, the step that it records is repeated after a crash."""
        try:
            self._journals.write(journal)
        except OSError as error:
            _log.warning("journal_not_written", command_id=journal.command_id, reason=str(error))

    def _clean_up(self) -> None:
        leftovers = self._context.leftovers
        Staging(self._root, leftovers).clear()
        self._generations.prune(self._config.configuration.keep, leftovers)

    def _reached(self, step: str) -> None:
        self._context.observer.reached(f"{self._command.type}.{step}")

    def _keep_output(self, error: Exception) -> None:
        if isinstance(error, CheckFailed):
            self._output = error.output

    def _unchanged(
        self, wanted: ApplyCentralizedConfiguration, record: Record, unchecked: ApplyJournal | None
    ) -> Result:
        if wanted.group not in (None, record.group):
            self._generations.write_record(replace(record, group=wanted.group))
        if unchecked is not None:
            self._journal = replace(unchecked, command_id=self._command.id)
            self._journals.write(self._journal)
            return self._reload_and_watch(self._journal)
        return results.unchanged(self._generations, record.name)

    def _failed(self, error: ConsumerError) -> Result:
        """Return the result for an error; it depends on the active generation."""
        self._keep_output(error)
        journal, code = self._journal, self._context.failure_code()
        try:
            if journal is not None and self._generations.current == journal.next:
                return results.not_rolled_back(self._generations, journal, str(error))
            return results.not_applied(self._generations, str(error), code, self._output)
        except OSError as second:  # often what has failed before
            return results.unknown(str(error), f"{second.filename}: {second.strerror}", code, self._output)
