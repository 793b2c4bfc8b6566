"""Active responses as the agent sees them: run one, know after a crash what became of it, list what is pending."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from broker.contract.messages import PendingReversal
from consumer.active_response.allow_list import Allowed
from consumer.active_response.records import Entry, ResponseRecords, Reversal
from consumer.active_response.reversals import Reversals, reversal_of
from consumer.active_response.script_runner import ScriptRunner
from consumer.active_response.wazuh_protocol import Request, read_keys, write_line
from consumer.errors import ActiveResponseError, ProgramError
from consumer.observer import Observer
from consumer.ports import Clock
from consumer.settings import ActiveResponseConfig, Confinement
from consumer.system.programs import Bounds, Ended, Program, clean_environment

__all__ = [
    "DIRECTORY",
    "ActiveResponses",
    "Attempt",
]


DIRECTORY = "active-responses"
_STEP = "execute-active-response."
_MAX_SHOWN = 50
_MAX_KEYS_SHOWN = 8
_KEY_SHOWN = 120


@dataclass(frozen=True)
class Attempt:
    """How a script's run ended. Without an `entry` it was never told to continue, nor to abort.

    `complaint` says what it did wrong in the dialogue, for which it was ended.
    """

    ended: Ended
    entry: Entry | None = None
    complaint: str | None = None


@dataclass(frozen=True)
class _Summary:
    entries: tuple[Entry, ...] = ()
    pending: tuple[PendingReversal, ...] = ()
    failure: str | None = None


class ActiveResponses:
    """The active responses of one agent; its `chore` takes them back. Everything is kept below `directory`.

    Raises StoreError when the directory cannot be used. `lane` runs the reversals beside the agent's loop; `wake` is
    called from it.
    """

    def __init__(
        self,
        config: ActiveResponseConfig,
        directory: Path,
        clock: Clock,
        observer: Observer,
        *,
        boot_id: str,
        lane: Callable[[Callable[[], None]], None],
        wake: Callable[[], None],
        confinement: Confinement = Confinement(),
    ) -> None:
        self._config = config
        self._clock = clock
        self._observer = observer
        self._boot_id = boot_id
        self._book = ResponseRecords(directory)
        self._workshop = ScriptRunner(config, directory, clock, confinement)
        self.chore = Reversals(self._book, self._workshop, directory / "runs", clock, observer, lane, wake)
        self.chore.recover()
        self._last_summary = _Summary()

    def run(self, request: Request, bounds: Bounds, environment: Mapping[str, str]) -> Attempt:
        """Run the script that is asked for, alone; raise ActiveResponseError when it may not run.

        The book says what its effect will be before the script is told to continue. `environment` is added to its own.
        """
        with self._workshop.turn(bounds):
            self.chore.settle_begun()
            self._book.forget_old(self._clock.now())
            allowed = self._workshop.prepare().find(request.script)
            within = replace(bounds, deadline=min(bounds.deadline, self._workshop.deadline()))
            path, home = self._workshop.path_of(allowed.executable), self._workshop.home
            with Program([path], within, environment=clean_environment(environment), cwd=home) as program:
                self._workshop.pid_file.write(program.pid)
                self._observer.reached(f"{_STEP}begun")
                return self._talk(program, request, allowed)

    def after_crash(self, command_id: str) -> Entry | None:
        """Return what the command had recorded when the agent died; its script has ended, or is ended now."""
        with self._workshop.turn():
            return self._book.of_command(command_id)

    def pending(self) -> tuple[PendingReversal, ...]:
        """Return what the status says: the soonest reversals, at most 50, with long keys cut short."""
        return self._summary().pending

    @property
    def pending_count(self) -> int:
        """How many effects will be taken back."""
        return len(self._book.pending())

    @property
    def failure(self) -> str | None:
        """What stands against taking everything back in time, in one sentence, or None."""
        if self._book.damaged:
            names = ", ".join(self._book.damaged)
            return f"Records of active responses were damaged, and will not be taken back: {names}."
        return self._summary().failure

    def _summary(self) -> "_Summary":
        """Return what the status says, made anew only when something has changed: the status is made at every turn."""
        entries = self._book.pending()
        if self._last_summary.entries is not entries:
            failure = next((_failure(entry) for entry in entries if reversal_of(entry).try_at is None), None)
            self._last_summary = _Summary(entries, tuple(_shown(entry) for entry in entries[:_MAX_SHOWN]), failure)
        return self._last_summary

    def _talk(self, program: Program, request: Request, allowed: Allowed) -> Attempt:
        message = request.message(allowed.executable)
        program.send(write_line(message, "add"))
        try:
            answer = program.read_line()
            if answer is None:
                return Attempt(program.wait())
            keys = read_keys(answer)
        except (ProgramError, ActiveResponseError) as error:
            return Attempt(program.end(), complaint=str(error))
        entry, word = self._decide(request, allowed, keys)
        self._observer.reached(f"{_STEP}recorded")
        program.send(write_line(message, word))
        ended = program.wait()
        self._observer.reached(f"{_STEP}ended")
        if ended.good and not entry.confirmed:
            entry = self._book.keep(replace(entry, confirmed=True))
            self._observer.reached(f"{_STEP}confirmed")
        return Attempt(ended, entry)

    def _decide(
        self, request: Request, allowed: Allowed, keys: tuple[str, ...]
    ) -> tuple[Entry, Literal["continue", "abort"]]:
        """Record what the script will be allowed to do, or that the time of what it did before begins anew."""
        before, now = self._book.find(allowed.executable, keys), self._clock.now()
        is_active = before is not None and self._is_active(before)
        offence = before.offence + before.confirmed if before else 1
        timeout_s = allowed.timeout_s if request.timeout_s is None else request.timeout_s
        if timeout_s and offence > 1 and self._config.repeated_offenders:
            minutes = self._config.repeated_offenders
            timeout_s = 60 * minutes[min(offence - 1, len(minutes)) - 1]
        reverses_at = now + timedelta(seconds=timeout_s)
        reversal = Reversal(reverses_at, request.message(allowed.executable), reverses_at) if timeout_s else None
        entry = Entry(
            script=request.script,
            executable=allowed.executable,
            keys=keys,
            command_id=request.command_id,
            state=("renewed" if is_active else "active") if reversal else "done",
            changed_at=now,
            boot_id=self._boot_id,
            confirmed=is_active,
            reversal=reversal,
            offence=offence,
        )
        return self._book.keep(entry), "abort" if is_active else "continue"

    def _is_active(self, entry: Entry) -> bool:
        """Whether its effect is surely there: not after a reboot, nor when the script failed to take it back."""
        reversal = entry.reversal
        surely_there = entry.confirmed and entry.boot_id == self._boot_id
        return reversal is not None and reversal.failure is None and surely_there


def _failure(entry: Entry) -> str:
    reversal, keys = reversal_of(entry), ", ".join(entry.keys)[:_KEY_SHOWN]
    return (
        f"{entry.script} ({keys}) was not taken back in {reversal.attempts} attempts and waits for the agent's next "
        f"start: {reversal.failure}"
    )


def _shown(entry: Entry) -> PendingReversal:
    reversal = reversal_of(entry)
    keys = tuple(key if len(key) <= _KEY_SHOWN else key[: _KEY_SHOWN - 1] + "…" for key in entry.keys[:_MAX_KEYS_SHOWN])
    state: Literal["waiting", "failed"] = "waiting" if reversal.try_at else "failed"
    return PendingReversal(entry.script, keys, entry.command_id, state, reversal.due_at)
