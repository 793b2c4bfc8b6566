"""The watcher: the old release's code in the agent's process, with the new release on trial as its child.

The child holds the lock of the state directory and does the agent's work. It dies with its watcher (prctl(2),
PR_SET_PDEATHSIG), so that two agents never run at once. It ends by itself when its trial has succeeded or failed; the
watcher then executes the release that stays, under the same process id. The launcher continues to start the watcher
until the new release has run for some minutes: the watcher counts the starts, and one too many brings the old release
back.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import NoReturn

import structlog

from broker.release.versions import parse_version
from broker.system.log_throttle import LogThrottle
from broker.system.threads import is_exhaustion, waits_for_resources
from broker.system.trees import remove_tree
from consumer.errors import UpgradeError
from consumer.settings import AgentConfig
from consumer.system.last_lines import LastLines
from consumer.upgrade.installation import Installation, trial_is_pending
from consumer.upgrade.trial import TrialState, UpgradeTrial

__all__ = [
    "is_watched",
    "watch",
]


_WATCHED = "ACM_WATCHED"
_STARTUP_S = 5.0  # added to the watch period, which the new release counts from its own start
_GRACE_S = 30.0  # for an agent to end its service and its connection
_RESTART_PAUSE_S = 0.5
_MAX_STARTS = 3
_MAX_RUNS = 3  # after the proof; see after_proof.py
_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = _STOP_SIGNALS | {signal.SIGCHLD}
_log = structlog.get_logger(__name__)


def is_watched(
    config: AgentConfig, arguments: Sequence[str], secrets: Mapping[str, str] = MappingProxyType({})
) -> bool:
    """Return whether this process is a release on trial, which exits where another agent would replace its process.

    If a release is on trial and this process is not it, execute the launcher, and so the watcher. `secrets` are
    variables that were taken out of the environment, for the watcher. Raises UpgradeError.
    """
    watched = os.environ.pop(_WATCHED, None) is not None
    root = config.upgrade.root
    try:
        pending = root is not None and not watched and trial_is_pending(config)
    except OSError as error:
        raise UpgradeError(f"{root} cannot be read: {error.strerror}: {error.filename}.") from error
    if root is not None and pending:
        _run(Installation(Path(root)).launcher, arguments, secrets)
    return watched


def _run(program: Path, arguments: Sequence[str], secrets: Mapping[str, str]) -> NoReturn:
    argv = [str(program), *arguments]
    try:
        os.execve(argv[0], argv, {**os.environ, **secrets})  # noqa: S606 - no shell is the point
    except OSError as error:
        raise UpgradeError(f"{program} cannot be run: {error.strerror}.") from error


def watch(root: Path, arguments: Sequence[str]) -> None:
    """Try the new release and run the release that stays; returns only after TERM or INT.

    `arguments` are the command line of the agent. Raises UpgradeError.
    """
    installation = Installation(root)
    try:
        with installation.watcher_lock(), _Signals() as signals:
            program = _Watcher(installation, arguments, signals).decide()
            if program is not None:
                signals.restore()
                _run(program, arguments, {})
    except OSError as error:
        raise UpgradeError(f"The upgrade in {root} cannot continue: {error.strerror}: {error.filename}.") from error


class _Signals:
    """Blocks the handled signals, so that they can be waited for and none is lost."""

    def __enter__(self) -> "_Signals":
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def restore(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    @staticmethod
    def wait(until: float) -> signal.Signals | None:
        """Return the next signal, or None at `until` (monotonic seconds)."""
        caught = signal.sigtimedwait(_SIGNALS, max(0.0, until - monotonic()))
        return signal.Signals(caught.si_signo) if caught else None


@dataclass(frozen=True)
class _Ended:
    """How a child ended, in words, and the end of its stderr.

    `overdue`: stopped at its deadline; `stopped`: the watcher received TERM or INT.
    """

    words: str
    stderr: str = ""
    overdue: bool = False
    stopped: bool = False


class _Watcher:
    def __init__(self, installation: Installation, arguments: Sequence[str], signals: _Signals) -> None:
        self._installation = installation
        self._arguments = arguments
        self._signals = signals
        self._throttle = LogThrottle(monotonic)

    def decide(self) -> Path | None:
        """Run the trial to its end, make the release that stays current, and return the program to execute.

        None if stopped by a signal.
        """
        trial = self._trial()
        if trial is None:
            return self._installation.launcher
        if trial.state is TrialState.ON_TRIAL:
            # design.md: "An upgrade is a trial, supervised by the old release."
            self._installation.switch_to(trial.new)
            trial = self._try_out(trial)
        if trial.state is TrialState.ON_TRIAL:
            return None
        if trial.state is TrialState.PROVED:
            trial = self._begin_run(trial)
        _log.info("upgrade_decided", old=trial.old, new=trial.new, state=str(trial.state), reason=trial.reason)
        is_proved = trial.state is TrialState.PROVED
        self._installation.switch_to(trial.new if is_proved else trial.old)
        if is_proved and trial.runs:
            return self._installation.program(trial.new)
        self._installation.end_trial()
        return self._installation.launcher

    def _trial(self) -> UpgradeTrial | None:
        """Return the record; without a readable one, make the release that watches the current one again."""
        reason = "it is missing"
        with contextlib.suppress(FileNotFoundError):
            try:
                trial = self._installation.trial()
            except UpgradeError as error:
                trial, reason = None, str(error)
            if trial is not None:
                return trial
        _log.error("upgrade_record_unreadable", reason=reason)
        watcher = self._installation.watcher
        if watcher is not None:
            self._installation.switch_to(watcher)
        self._installation.set_record_aside()
        self._installation.end_trial()
        return None

    def _begin_run(self, trial: UpgradeTrial) -> UpgradeTrial:
        """Count a start of the release that has proved itself, or fail it if it was started too often.

        An older release is not watched: it may not know that it has to end the watch.
        """
        if parse_version(trial.new) < parse_version(trial.old):
            return trial
        if trial.runs >= _MAX_RUNS:
            return self._fail(
                trial, f"it had proved itself, but then ended {trial.runs} times before it had run for some minutes"
            )
        with contextlib.suppress(OSError):  # a full disk must not bring the old release back
            trial = self._installation.keep(trial.begun())
        return trial

    def _try_out(self, trial: UpgradeTrial) -> UpgradeTrial:
        """Run the new release until its trial ends; the trial has not ended if a signal stopped the watcher."""
        ended, deadline = None, monotonic() + trial.watch_s + _STARTUP_S
        while trial.state is TrialState.ON_TRIAL:
            if ended is not None and ended.overdue:
                return self._fail(trial, f"it did not prove itself within {trial.watch_s:g} s, and it {ended.words}")
            if trial.starts >= _MAX_STARTS:
                last = f"; the last time it {ended.words}" if ended else ""
                return self._fail(trial, f"it was started {trial.starts} times and did not prove itself{last}")
            if ended is not None and self._signals.wait(monotonic() + _RESTART_PAUSE_S) in _STOP_SIGNALS:
                return trial
            trial = self._installation.keep(trial.started())
            ended = self._run(self._installation.program(trial.new), deadline)
            _log.info("release_on_trial_ended", version=trial.new, how=ended.words)
            trial = self._installation.trial() or trial
            if trial.state is not TrialState.PROVED:
                trial = self._with_stderr(trial, ended.stderr)
            if ended.stopped:
                return trial
        return trial

    def _with_stderr(self, trial: UpgradeTrial, stderr: str) -> UpgradeTrial:
        with contextlib.suppress(OSError):  # the outcome matters more
            return self._installation.keep(replace(trial, stderr=stderr))
        return trial

    def _fail(self, trial: UpgradeTrial, reason: str) -> UpgradeTrial:
        failed = trial.failed(reason)
        try:
            return self._installation.keep(failed)
        except OSError:
            with contextlib.suppress(OSError):  # the old release must come back even if the disk is full
                remove_tree(self._installation.release(trial.new))
            return self._installation.keep(failed)

    def _run(self, program: Path, deadline: float) -> _Ended:
        try:
            child, stderr = self._start(program, deadline)
        except _Stopped:
            return _Ended("was not started", stopped=True)
        except OSError as error:
            return _Ended(f"could not be started ({error.strerror})", overdue=monotonic() >= deadline)
        stopped = overdue = False
        while child.poll() is None:
            caught = self._signals.wait(deadline)
            if caught is signal.SIGCHLD:
                continue
            child.send_signal(caught or (signal.SIGKILL if stopped or overdue else signal.SIGTERM))
            stopped, overdue = stopped or caught is not None, overdue or caught is None
            deadline = monotonic() + _GRACE_S
        return _Ended(_describe(child.returncode), stderr.text(), overdue=overdue and not stopped, stopped=stopped)

    def _start(self, program: Path, deadline: float) -> tuple["subprocess.Popen[bytes]", LastLines]:
        """Start the release; what the machine does not have now is waited for, since the release has not failed then.

        Raises OSError, and _Stopped if a signal ends the wait.
        """
        for wait_s in waits_for_resources():
            try:
                return self._start_now(program)
            except OSError as error:
                if not is_exhaustion(error) or monotonic() >= deadline:
                    raise
                self._throttle.warn(_log, "release_not_started", reason=error.strerror)
            if self._signals.wait(min(deadline, monotonic() + wait_s)) in _STOP_SIGNALS:
                raise _Stopped
        raise AssertionError("the waits do not end")

    def _start_now(self, program: Path) -> tuple["subprocess.Popen[bytes]", LastLines]:
        stderr = LastLines()
        try:
            child = subprocess.Popen(
                [program, *self._arguments],
                env={**os.environ, _WATCHED: "1"},
                stderr=stderr.pipe,
                preexec_fn=_die_with_parent(self._signals.restore),
            )
        finally:
            stderr.close()
        return child, stderr


class _Stopped(Exception):
    """TERM or INT has arrived."""


def _die_with_parent(prepare: Callable[[], None]) -> Callable[[], None]:
    """Return the function that the child calls before it executes its program."""
    prctl, watcher = ctypes.CDLL(None).prctl, os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != watcher:
            os._exit(1)
        prepare()

    return in_child


def _describe(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit status {returncode}"
