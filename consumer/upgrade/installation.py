"""The installation of an agent that can upgrade itself, and the switch from one release to another.

ROOT/acm-agent            the launcher, through which every release is started
ROOT/releases/VERSION/    one directory for each release; its program is bin/acm-agent
ROOT/current              link to the release to run
ROOT/watcher              link to the release that watches a new one; exists only during a trial
ROOT/trial.json           the record of the last upgrade; trial.damaged: one that was set aside during it
ROOT/*.lock, package-*.part locks of a watcher and of an upgrade; a download in progress
"""

import contextlib
import os
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path

import consumer
from broker.release.manifest import PROGRAM
from broker.release.versions import InvalidVersion, parse_version
from broker.system.files import link_durably, set_damaged_aside, sync_directory, write_durably
from broker.system.lock import acquire_lock
from broker.system.permissions import refuse_changeable
from broker.system.trees import remove_tree
from consumer.errors import UpgradeError
from consumer.settings import AgentConfig
from consumer.upgrade.trial import TrialState, UpgradeTrial

__all__ = [
    "Installation",
    "trial_is_pending",
]


class Installation:
    """The directory of one agent's releases. All methods raise OSError when the disk fails."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.launcher = root / "acm-agent"
        self._releases = root / "releases"
        self._current = root / "current"
        self._watcher = root / "watcher"
        self._record = root / "trial.json"

    def make(self) -> None:
        """Create the directories and the launcher."""
        self._releases.mkdir(mode=0o755, parents=True, exist_ok=True)
        launcher = files("consumer.upgrade").joinpath("launcher.sh").read_bytes()
        write_durably(self.launcher, launcher, mode=0o755)

    def refuse_exposed(self) -> None:
        """Raise ExposedFileError if another user could change the launcher or the current release."""
        try:
            for place in (self.root, self.launcher, self._releases, self._current / PROGRAM):
                with contextlib.suppress(FileNotFoundError):
                    refuse_changeable(place)
        except OSError as error:
            raise UpgradeError(f"{self.root} cannot be used: {error.strerror}: {error.filename}.") from error

    def release(self, version: str) -> Path:
        """Return the directory of a release, which need not exist."""
        return self._releases / version

    def program(self, version: str) -> Path:
        """Return the program of a release."""
        return self.release(version) / PROGRAM

    @property
    def current(self) -> str | None:
        """The version to run, or None before the first installation."""
        try:
            return self._current.readlink().name
        except (FileNotFoundError, NotADirectoryError):
            return None

    def running(self) -> str | None:
        """Return the version whose code this process runs, or None if it is not one of these releases."""
        releases, code = (Path(os.path.realpath(place)) for place in (self._releases, consumer.__file__))
        name = code.relative_to(releases).parts[0] if code.is_relative_to(releases) else ""
        return name if _is_version(name) else None

    def switch_to(self, version: str) -> None:
        """Make a release the current one, atomically."""
        link_durably(self._current, f"{self._releases.name}/{version}")

    def trial(self) -> UpgradeTrial | None:
        """Return the record of the last upgrade, or None."""
        try:
            return UpgradeTrial.decode(self._record.read_bytes())
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise UpgradeError(
                f"The record of the last upgrade, {self._record}, is a directory.", code="trial_damaged"
            ) from error

    def keep(self, trial: UpgradeTrial) -> UpgradeTrial:
        """Write the record durably and return it."""
        write_durably(self._record, trial.encode(), mode=0o644)
        return trial

    def set_record_aside(self) -> None:
        """Rename an unreadable record, so that it can be looked at."""
        with contextlib.suppress(FileNotFoundError):
            set_damaged_aside(self._record)

    @property
    def damaged_record(self) -> Path | None:
        """A record that was set aside since `begin_upgrade`, or None."""
        aside = self._record.with_suffix(".damaged")
        return aside if aside.exists() else None

    def begin_upgrade(self) -> None:
        """Remove what was set aside in an earlier upgrade."""
        aside = self.damaged_record
        if aside is not None:
            remove_tree(aside)

    @property
    def watcher(self) -> str | None:
        """The version that watches another one: during its trial, and until it has run for long enough after that."""
        return self._watcher.readlink().name if (self._watcher / PROGRAM).is_file() else None

    @property
    def on_trial(self) -> bool:
        """Whether a new release is on trial and its watcher exists."""
        if self.watcher is None:
            return False
        with contextlib.suppress(UpgradeError):
            trial = self.trial()
            return trial is None or trial.state is TrialState.ON_TRIAL or not trial.runs
        return True  # the watcher decides what an unreadable record means

    def begin_trial(self, trial: UpgradeTrial) -> None:
        """Record the trial; afterwards, the launcher starts the old release as the watcher of the new one."""
        self.keep(trial)
        # design.md: "A link, not a record, marks a trial"
        link_durably(self._watcher, f"{self._releases.name}/{trial.old}")

    def end_trial(self) -> None:
        """Remove the watcher; afterwards, the launcher starts the current release again."""
        self._watcher.unlink(missing_ok=True)
        sync_directory(self.root)

    def watcher_lock(self) -> AbstractContextManager[None]:
        """Hold the watcher's lock, which is released when this process ends or executes another program.

        Raises UpgradeError if another process holds it.
        """
        held = f"A new version is on trial in {self.root}, and another process watches it."
        return self._locked("watcher.lock", "already_watched", held)

    def upgrade_lock(self) -> AbstractContextManager[None]:
        """Hold the upgrade's lock; raises UpgradeError if another one runs, possibly of an interrupted command."""
        held = f"Another upgrade in {self.root} has not ended yet; send the command again later."
        return self._locked("upgrade.lock", "upgrade_running", held)

    @contextlib.contextmanager
    def _locked(self, name: str, code: str, otherwise: str) -> Iterator[None]:
        try:
            handle = acquire_lock(self.root / name)
        except BlockingIOError:
            raise UpgradeError(otherwise, code=code) from None
        try:
            yield
        finally:
            os.close(handle)

    def spare(self, keep: int, needed: Set[str]) -> list[Path]:
        """Return the releases to remove, so that the newest `keep` are left and all needed ones."""
        there = {path.name for path in self._releases.iterdir() if _is_version(path.name)}
        spare = sorted(there - needed, key=parse_version, reverse=True)
        return [self.release(name) for name in spare[max(0, keep - len(there & needed)) :]]


def _is_version(name: str) -> bool:
    try:
        parse_version(name)
    except InvalidVersion:
        return False
    return True


def trial_is_pending(config: AgentConfig) -> bool:
    """Return whether a new release of this agent is on trial; if so, nothing else may replace its process."""
    return config.upgrade.root is not None and Installation(Path(config.upgrade.root)).on_trial
