"""upgrade-agent: a new release replaces the agent, and is kept only if it proves itself.

If the agent crashes before the trial is recorded, nothing has changed, and the upgrade starts over. After that, the
record has the outcome, and the release that is kept reports it.
"""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from broker.contract.commands import parse_parameters
from broker.contract.commands.upgrade_agent import UpgradeAgent, UpgradeAgentData
from broker.contract.messages import Command, Output
from broker.contract.states import ErrorCode
from broker.release.manifest import Manifest
from broker.release.versions import parse_version
from consumer.errors import UpgradeError
from consumer.handler import AgentRestart, Context, Handler, Interruption, ReplacementTest, Result
from consumer.ports import ReadinessProblem, StoredCommand
from consumer.settings import UpgradeConfig
from consumer.system.programs import Ended, run_program
from consumer.upgrade.installation import Installation
from consumer.upgrade.packages import check_fits, open_package, unpack_package
from consumer.upgrade.trial import TrialState, UpgradeTrial

__all__ = [
    "handler",
]


_log = structlog.get_logger(__name__)
_TYPE = "upgrade-agent"
_POLL_INTERVAL_S = 0.1


def handler(
    config: UpgradeConfig, readiness_problem: ReadinessProblem, test_replacement: ReplacementTest | None = None
) -> Handler[UpgradeAgent]:
    """Return the handler. `readiness_problem` returns why this process is not ready yet, or None.

    `test_replacement` tests the launcher before a trial: if that did not start the running release, with the
    configuration as it is now, a rollback would not lead back to it.
    """
    return Handler(
        _TYPE,
        Interruption.PROBE,
        UpgradeAgent,
        partial(_execute, config, test_replacement),
        partial(_probe, config, test_replacement, readiness_problem),
    )


@dataclass(frozen=True)
class _Upgrade:
    """One upgrade before its trial. `running` is the version that runs now."""

    installation: Installation
    running: str
    context: Context
    config: UpgradeConfig
    test_replacement: ReplacementTest | None

    @classmethod
    def of(cls, context: Context, config: UpgradeConfig, test_replacement: ReplacementTest | None) -> "_Upgrade":
        root = config.root
        if root is None:
            raise UpgradeError(
                "This agent cannot upgrade itself: install it with `acm-agent install` and set upgrade.root.",
                code="not_installed",
            )
        installation = Installation(Path(root))
        installation.refuse_exposed()
        running = installation.running()
        if running is None:
            raise UpgradeError(
                f"This agent cannot upgrade itself: it does not run from {root} (upgrade.root); "
                f"start it with {installation.launcher}.",
                code="not_started_from_root",
            )
        return cls(installation, running, context, config, test_replacement)

    def run(self, command: Command, parameters: UpgradeAgent) -> Result | AgentRestart:
        with self.installation.upgrade_lock():
            return self._run(command, parameters)

    def _run(self, command: Command, parameters: UpgradeAgent) -> Result | AgentRestart:
        config, installation = self.config, self.installation
        if installation.on_trial:
            raise UpgradeError(
                "Another version is on trial; send the command again once the trial has ended.", code="on_trial"
            )
        installation.begin_upgrade()
        with self._download(parameters) as package:
            manifest = open_package(package, config.public_keys)
            check_fits(manifest, config.name, installation.root)
            if self._is_unchanged(manifest, parameters):
                data = UpgradeAgentData("unchanged", self.running, manifest.version, self.running)
                return Result(f"Version {self.running} runs already; nothing was done.", data)
            self.context.progress.report("unpack")
            unpack_package(package, manifest, installation.release(manifest.version), self.context.leftovers)
        self._reached("unpacked")
        self.context.progress.report("self-test")
        failed = self._test(manifest)
        if failed is not None:
            self.context.leftovers.remove(installation.release(manifest.version))
            return failed
        self._reached("tested")
        return self._begin_trial(UpgradeTrial(command.id, self.running, manifest.version, config.watch_s))

    def _reached(self, step: str) -> None:
        self.context.observer.reached(f"{_TYPE}.{step}")
        self._check_time()

    def _check_time(self) -> None:
        if self.context.cancelled.is_set():
            raise UpgradeError(
                "The upgrade was cancelled before the new version was tried; nothing has changed.", code="cancelled"
            )
        if self.context.clock.monotonic() >= self.context.deadline:
            raise UpgradeError(
                "The command timed out before the new version was tried; nothing has changed.", code="timed_out"
            )

    @contextlib.contextmanager
    def _download(self, parameters: UpgradeAgent) -> Iterator[Path]:
        root, leftovers = self.installation.root, self.context.leftovers
        leftovers.remove_all(root.glob("package*.part"))  # of attempts that were interrupted
        package = root / f"package-{uuid.uuid4().hex[:12]}.part"
        try:
            self.context.downloader().fetch(parameters.package, package)
            self._reached("downloaded")
            yield package
        finally:
            leftovers.remove(package)

    def _is_unchanged(self, manifest: Manifest, parameters: UpgradeAgent) -> bool:
        wanted, running = parse_version(manifest.version), parse_version(self.running)
        if wanted < running and not parameters.allow_downgrade:
            raise UpgradeError(
                f"Version {manifest.version} is older than {self.running}, which runs; allow_downgrade=true allows it.",
                code="downgrade",
            )
        return wanted == running

    def _test(self, manifest: Manifest) -> Result | None:
        """Return the result if the release fails its self-test, or the launcher does not start; None if both work."""
        context, release = self.context, self.installation.release(manifest.version)
        deadline = min(context.deadline, context.clock.monotonic() + self.config.self_test_s)
        program, *arguments = manifest.self_test
        bounds = replace(context.bounds().as_agent(), deadline=deadline)
        ended = run_program([str(release / program), *arguments], bounds, cwd=release)
        if not ended.good:
            return self._failed_self_test(manifest, ended)
        return self.test_replacement(context, str(self.installation.launcher)) if self.test_replacement else None

    def _failed_self_test(self, manifest: Manifest, ended: Ended) -> Result:
        self._check_time()
        message = f"The self-test of version {manifest.version} {ended.in_words()}; version {self.running} stays."
        return Result(message, code=ErrorCode.FAILED, output=ended.output)

    def _begin_trial(self, trial: UpgradeTrial) -> AgentRestart:
        """Switch to the new release. The trial then decides the result, unless the command has timed out."""
        installation = self.installation
        installation.begin_trial(trial)
        self.context.observer.reached(f"{_TYPE}.recorded")
        installation.switch_to(trial.new)
        self.context.observer.reached(f"{_TYPE}.switched")
        try:
            self._check_time()
        except UpgradeError:
            installation.switch_to(trial.old)
            installation.end_trial()
            raise
        return AgentRestart(str(installation.launcher))


def _execute(
    config: UpgradeConfig,
    test_replacement: ReplacementTest | None,
    command: Command,
    parameters: UpgradeAgent,
    context: Context,
) -> Result | AgentRestart:
    with _disk_errors_named():
        return _Upgrade.of(context, config, test_replacement).run(command, parameters)


def _probe(
    config: UpgradeConfig,
    test_replacement: ReplacementTest | None,
    readiness_problem: ReadinessProblem,
    stored: StoredCommand,
    context: Context,
) -> Result | AgentRestart:
    with _disk_errors_named():
        upgrade = _Upgrade.of(context, config, test_replacement)
        trial = upgrade.installation.trial()
        damaged = upgrade.installation.damaged_record
        if trial is None and damaged is not None:
            message = f"The record of the trial was damaged, and is now at {damaged}; version {upgrade.running} runs."
            return Result(message, code=ErrorCode.FAILED)
        if trial is None or trial.command_id != stored.command.id:
            return _start_over(stored.command, upgrade)
        if trial.state is TrialState.ON_TRIAL:
            if upgrade.running != trial.new:
                return _start_over(stored.command, upgrade)
            with contextlib.suppress(OSError):  # without a record, nothing is proved, and the watcher decides
                trial = _prove(trial, upgrade, readiness_problem)
            if upgrade.installation.on_trial:
                return AgentRestart()  # the watcher continues
        return _result(trial, upgrade)


def _start_over(command: Command, upgrade: _Upgrade) -> Result | AgentRestart:
    if command.expires_at is not None and command.expires_at <= upgrade.context.clock.now():
        return Result(
            "The agent died before the new version was tried, and the command has expired since; nothing has changed.",
            code=ErrorCode.INTERRUPTED,
        )
    foreign_form = command.original is not None
    return upgrade.run(command, parse_parameters(_TYPE, UpgradeAgent, command.parameters, foreign_form=foreign_form))


def _prove(trial: UpgradeTrial, upgrade: _Upgrade, readiness_problem: ReadinessProblem) -> UpgradeTrial:
    """In the new version, wait until this process is ready or its time is up, and record the outcome."""
    context, keep = upgrade.context, upgrade.installation.keep
    context.observer.reached(f"{_TYPE}.started")
    context.progress.report("trial")
    until = min(context.deadline, context.clock.monotonic() + trial.watch_s)
    while (problem := readiness_problem()) is not None:
        if context.clock.monotonic() >= until:
            return keep(trial.failed(f"it did not prove itself in time: {problem}"))
        if context.cancelled.wait(_POLL_INTERVAL_S):
            return keep(trial.failed("the command was cancelled before it had proved itself"))
    proved = keep(trial.proved())
    context.observer.reached(f"{_TYPE}.proved")
    return proved


def _result(trial: UpgradeTrial, upgrade: _Upgrade) -> Result:
    _prune_releases(trial, upgrade)
    running = upgrade.running
    if trial.state is TrialState.PROVED and running == trial.new:
        data = UpgradeAgentData("upgraded", running, trial.new, trial.old)
        return Result(f"The agent was upgraded from {trial.old} to {trial.new}, which has proved itself.", data)
    if trial.state is TrialState.FAILED and running == trial.old:
        data = UpgradeAgentData("rolled_back", running, trial.new, trial.old, trial.reason)
        message = f"Version {trial.new} was tried and rolled back: {trial.reason}; version {trial.old} runs again."
        output = Output("", trial.stderr, False) if trial.stderr else None
        return Result(message, data, ErrorCode.FAILED, output)
    became = "proved itself" if trial.state is TrialState.PROVED else f"failed ({trial.reason or 'not recorded'})"
    message = f"Version {trial.new} {became}, but {running} runs now, and not because of this command."
    return Result(message, code=ErrorCode.FAILED)


def _prune_releases(trial: UpgradeTrial, upgrade: _Upgrade) -> None:
    """Remove old releases; a failure does not change the result."""
    try:
        if not (trial.runs and trial.state is TrialState.PROVED):  # otherwise it is still watched
            upgrade.installation.end_trial()
        needed = {upgrade.running, trial.old, trial.new}
        upgrade.context.leftovers.remove_all(upgrade.installation.spare(upgrade.config.keep, needed))
    except OSError as error:
        _log.warning("releases_not_pruned", reason=str(error))


@contextlib.contextmanager
def _disk_errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UpgradeError(
            f"The upgrade failed on the disk: {error.filename}: {error.strerror}.", code="disk_failed"
        ) from error
