"""The active responses of an agent: runs one, determines its outcome after a crash, lists the pending reversals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from broker.contract.messages import JsonObject, PendingReversal
from consumer.active_response.allow_list import Allowed, AllowListCheck
from consumer.active_response.protected_targets import ProtectedTargets
from consumer.active_response.records import ResponseRecord, ResponseRecords, Reversal
from consumer.active_response.reversals import Reversals, reversal_of
from consumer.active_response.script_runner import ScriptRunner
from consumer.active_response.wazuh_protocol import Request, read_keys, write_line
from consumer.errors import ActiveResponseError
from consumer.observer import Observer
from consumer.ports import Clock
from consumer.settings import ActiveResponseConfig, Confinement
from consumer.system.clock import Boot
from consumer.system.leftovers import Leftovers
from consumer.system.programs import OUTPUT_BYTES, Bounds, Ended, Program, clean_environment

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
    """How a script's run ended. Without a `record`, the script received neither `continue` nor `abort`."""

    ended: Ended
    record: ResponseRecord | None = None


@dataclass(frozen=True)
class _Summary:
    records: tuple[ResponseRecord, ...] = ()
    pending: tuple[PendingReversal, ...] = ()
    failure: str | None = None


class ActiveResponses:
    """The active responses of one agent; `reversals` reverses their effects. All files are below `directory`.

    Raises StoreError when the directory cannot be used. `spawn` runs a function on another thread, which calls `wake`
    to wake the agent's loop.
    """

    def __init__(
        self,
        config: ActiveResponseConfig,
        directory: Path,
        clock: Clock,
        observer: Observer,
        *,
        boot: Boot,
        spawn: Callable[[Callable[[], None]], None],
        wake: Callable[[], None],
        protected: ProtectedTargets | None = None,
        confinement: Confinement = Confinement(),
        leftovers: Leftovers | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._observer = observer
        self._boot = boot
        self._protected = protected or ProtectedTargets()
        self._allow_list = AllowListCheck(config)
        self._records = ResponseRecords(directory)
        self._runner = ScriptRunner(config, directory, clock, confinement)
        self.reversals = Reversals(
            self._records,
            self._runner,
            directory / "runs",
            clock,
            observer,
            spawn,
            wake,
            boot,
            Leftovers() if leftovers is None else leftovers,
        )
        self.reversals.recover()
        self._cached_summary = _Summary()

    def run(self, request: Request, bounds: Bounds, environment: Mapping[str, str]) -> Attempt:
        """Run the requested script; no other script runs at the same time.

        Raises ActiveResponseError or ExposedFileError if it may not run, ProtectedTargetError also after it has started
        and named a protected key: it then received `abort`.

        Its effect is recorded before the script receives `continue`. `environment` is added to the script's own.
        """
        with self._runner.exclusive(bounds):
            self.reversals.finish_begun()
            self._records.forget_old(self._clock.now())
            allowed = self._runner.prepare().find(request.script)
            self._protected.check_alert(request.alert, allowed.executable)
            within = replace(bounds, deadline=min(bounds.deadline, self._runner.deadline()))
            path, cwd = self._runner.path_of(allowed.executable), self._runner.working_directory
            with Program([path], within, environment=clean_environment(environment), cwd=cwd) as program:
                self._runner.pid_file.write(program.pid)
                self._observer.reached(f"{_STEP}begun")
                return self._run_protocol(program, request, allowed)

    def after_crash(self, command_id: str) -> ResponseRecord | None:
        """Return the record that the command wrote before the agent died; ends its script if it still runs."""
        with self._runner.exclusive():
            return self._records.find_by_command(command_id)

    def pending(self) -> tuple[PendingReversal, ...]:
        """Return the pending reversals for the status: the soonest 50, with long keys truncated."""
        return self._summary().pending

    @property
    def pending_count(self) -> int:
        """The number of effects that will be reversed."""
        return len(self._records.pending())

    @property
    def failure(self) -> str | None:
        """Why some effects will not be reversed in time, and what is wrong with the allow-list; None if nothing is."""
        return " ".join(filter(None, (*self._lost_records(), self._allow_list.problem))) or None

    def _lost_records(self) -> tuple[str | None, ...]:
        damaged, unreadable = ", ".join(self._records.damaged), ", ".join(self._records.unreadable)
        if not damaged and not unreadable:
            return (self._summary().failure,)
        return (
            damaged and f"Records of active responses were damaged; their effects will not be reversed: {damaged}.",
            unreadable
            and "Records of active responses cannot be read; a restart of the agent that can read them reverses their "
            f"effects: {unreadable}.",
        )

    def _summary(self) -> "_Summary":
        """Return the summary for the status, rebuilt only after a change: every step of the agent reads it."""
        records = self._records.pending()
        if self._cached_summary.records is not records:
            failure = next((_failure(record) for record in records if reversal_of(record).try_at is None), None)
            self._cached_summary = _Summary(records, tuple(_shown(record) for record in records[:_MAX_SHOWN]), failure)
        return self._cached_summary

    def _run_protocol(self, program: Program, request: Request, allowed: Allowed) -> Attempt:
        message = request.message(allowed.executable)
        program.send(write_line(message, "add"))
        answer = program.read_line()
        if answer is None:
            program.close_stdin()
            return Attempt(program.wait())
        keys = read_keys(answer)
        if keys is not None:
            self._refuse_protected(keys, program, message)
        # design.md: "An active response is recorded with its reversal before its script is allowed to continue."
        record, decision = self._decide(request, allowed, (allowed.executable,) if keys is None else keys)
        self._observer.reached(f"{_STEP}recorded")
        program.send(write_line(message, decision))
        program.close_stdin()
        ended = program.wait()
        if keys is None:
            ended = _with_first_line(ended, answer)
        self._observer.reached(f"{_STEP}ended")
        if ended.good and not record.confirmed:
            record = self._records.save(replace(record, confirmed=True))
            self._observer.reached(f"{_STEP}confirmed")
        return Attempt(ended, record)

    def _refuse_protected(self, keys: tuple[str, ...], program: Program, message: JsonObject) -> None:
        try:
            self._protected.check_keys(keys)
        except ActiveResponseError:
            program.send(write_line(message, "abort"))
            program.close_stdin()
            program.wait()
            raise

    def _decide(
        self, request: Request, allowed: Allowed, keys: tuple[str, ...]
    ) -> tuple[ResponseRecord, Literal["continue", "abort"]]:
        """Record the script's new effect, or restart the timeout of its earlier effect."""
        before, now = self._records.find(allowed.executable, keys), self._clock.now()
        is_active = before is not None and self._is_active(before)
        offence = before.offence + before.confirmed if before else 1
        timeout_s = allowed.timeout_s if request.timeout_s is None else request.timeout_s
        if timeout_s and offence > 1 and self._config.repeated_offenders:
            minutes = self._config.repeated_offenders
            timeout_s = 60 * minutes[min(offence - 1, len(minutes)) - 1]
        reverses_at = now + timedelta(seconds=timeout_s)
        reversal = None
        if timeout_s:
            message = request.message(allowed.executable)
            reversal = self.reversals.due_in(timeout_s, Reversal(reverses_at, message, reverses_at))
        record = ResponseRecord(
            script=request.script,
            executable=allowed.executable,
            keys=keys,
            command_id=request.command_id,
            state=("renewed" if is_active else "active") if reversal else "done",
            changed_at=now,
            boot_id=self._boot.id,
            confirmed=is_active,
            reversal=reversal,
            offence=offence,
        )
        return self._records.save(record), "abort" if is_active else "continue"

    def _is_active(self, record: ResponseRecord) -> bool:
        """Return whether its effect certainly exists: it may not after a reboot or a failed reversal."""
        reversal = record.reversal
        certain = record.confirmed and record.boot_id == self._boot.id
        return reversal is not None and reversal.failure is None and certain


def _with_first_line(ended: Ended, line: bytes) -> Ended:
    """Return it with the line that was read as the script's answer, and is none, in the output."""
    stdout = f"{line.decode(errors='replace')}\n{ended.output.stdout}"[:OUTPUT_BYTES]
    return replace(ended, output=replace(ended.output, stdout=stdout))


def _failure(record: ResponseRecord) -> str:
    reversal, keys = reversal_of(record), ", ".join(record.keys)[:_KEY_SHOWN]
    return (
        f"{record.script} ({keys}) was not reversed in {reversal.attempts} attempts and waits for the agent's next "
        f"start: {reversal.failure}"
    )


def _shown(record: ResponseRecord) -> PendingReversal:
    reversal = reversal_of(record)
    keys = tuple(
        key if len(key) <= _KEY_SHOWN else key[: _KEY_SHOWN - 1] + "…" for key in record.keys[:_MAX_KEYS_SHOWN]
    )
    state: Literal["waiting", "failed"] = "waiting" if reversal.try_at else "failed"
    return PendingReversal(record.script, keys, record.command_id, state, reversal.due_at)
