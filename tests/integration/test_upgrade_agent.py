"""What upgrade-agent answers before a trial, and what the process that comes after a crash makes of its record."""

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import consumer
from broker.contract.artifacts import Artifact
from broker.contract.commands.upgrade_agent import UpgradeAgent, UpgradeAgentData
from broker.contract.messages import Output
from broker.contract.states import ErrorCode, State
from broker.release.builder import make_manifest, sign_manifest, write_package
from broker.release.manifest import render_manifest
from consumer.errors import ConsumerError, DownloadError, UpgradeError
from consumer.handler import AgentRestart, Context, Handler, Replacement, ReplacementTest, Result
from consumer.handlers import upgrade_agent
from consumer.ports import StoredCommand
from consumer.replacement import StartTest, replace_process
from consumer.services import NoService
from consumer.settings import UpgradeConfig
from consumer.system.clock import SystemClock
from consumer.system.leftovers import Leftovers
from consumer.upgrade.after_proof import WATCH_S, AfterProof
from consumer.upgrade.installation import Installation, trial_is_pending
from consumer.upgrade.trial import TrialState, UpgradeTrial
from scripts.release import write_program
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, command, config
from tests.support.unprivileged import as_nobody, directory_of_nobody
from tests.unit.broker.release.test_minisign import make_key

PARAMETERS = UpgradeAgent(Artifact("file:///nowhere/package", "0" * 64, 1))


class Steps:
    """Remembers the steps; `at` is done when its step is reached."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.at: tuple[str, Callable[[], object]] = ("", lambda: None)

    def reached(self, step: str) -> None:
        self.names.append(step.removeprefix("upgrade-agent."))
        if self.names[-1] == self.at[0]:
            self.at[1]()


class Agent:
    """The handler in a process that runs one of the releases 1.0.0 and 1.1.0."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.installation = Installation(root)
        self.installation.make()
        self.clock: Any = TurnedClock()
        self.steps = Steps()
        self.readiness_problem: Callable[[], str | None] = lambda: None
        self.cancelled = threading.Event()
        self.deadline = 60.0
        self.public_keys: tuple[str, ...] = ()
        self.test_replacement: ReplacementTest | None = None
        self.leftovers = Leftovers()
        self._monkeypatch = monkeypatch
        for version in ("1.0.0", "1.1.0"):
            program = self.installation.program(version)
            program.parent.mkdir(parents=True)
            program.touch()

    def runs(self, version: str) -> "Agent":
        code = self.installation.release(version) / "lib" / "consumer" / "__init__.py"
        self._monkeypatch.setattr(consumer, "__file__", str(code))
        return self

    def context(self) -> Context:
        return Context(
            self.clock,
            NoService(),
            Path("/nowhere"),
            deadline=self.clock.monotonic() + self.deadline,
            cancelled=self.cancelled,
            observer=self.steps,
            leftovers=self.leftovers,
        )

    def settings(self) -> UpgradeConfig:
        return UpgradeConfig(str(self.installation.root), self.public_keys, keep=1, self_test_s=0.2)

    def handler(self) -> Handler[UpgradeAgent]:
        return upgrade_agent.handler(self.settings(), self.readiness_problem, self.test_replacement)

    def on_trial(self, **members: Any) -> UpgradeTrial:
        trial = replace(UpgradeTrial("a", "1.0.0", "1.1.0", 30.0), **members)
        self.installation.begin_trial(trial)
        self.installation.switch_to("1.1.0")
        return trial

    def settled(self, **members: Any) -> None:
        self.on_trial(**members)
        self.installation.end_trial()

    def package(self, program: str) -> UpgradeAgent:
        """Make a package of version 1.2.0 with this shell script as its program."""
        directory = self.installation.root.parent
        write_program(directory / "release", f"#!/bin/sh\n{program}\n")
        key, package = directory / "ours", directory / "package.tar.gz"
        make_key(key)
        self.public_keys = (Path(f"{key}.pub").read_text().splitlines()[-1],)
        manifest = make_manifest(directory / "release", "agent-command-manager", "1.2.0", "any")
        write_package(
            directory / "release", manifest, sign_manifest(render_manifest(manifest), Path(f"{key}.key")), package
        )
        content = package.read_bytes()
        return UpgradeAgent(Artifact(f"file://{package}", hashlib.sha256(content).hexdigest(), len(content)))

    def execute(self, parameters: UpgradeAgent) -> Result | AgentRestart:
        return self.handler().execute(command("a"), parameters, self.context())

    def state(self) -> TrialState:
        trial = self.installation.trial()
        assert trial is not None
        return trial.state

    def probe(self, **members: Any) -> Result | AgentRestart:
        parameters = msgspec.to_builtins(PARAMETERS)
        stored = replace(command("a", command_type="upgrade-agent"), parameters=parameters, **members)
        probe = self.handler().probe
        assert probe is not None
        return probe(StoredCommand("c/1", stored, State.PROCESSING, NOW, NOW, "i1"), self.context())


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    return Agent(tmp_path / "root", monkeypatch).runs("1.0.0")


def test_upgrade_without_an_installation_is_refused(agent: Agent) -> None:
    bare = upgrade_agent.handler(UpgradeConfig(), agent.readiness_problem)
    with raises_code(UpgradeError, "not_installed"):
        bare.execute(command("a"), PARAMETERS, agent.context())


def test_upgrade_outside_the_installation_is_refused(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with raises_code(UpgradeError, "not_started_from_root") as caught:
        agent.handler().execute(command("a"), PARAMETERS, agent.context())
    assert str(agent.installation.launcher) in str(caught.value)


def test_directory_without_a_version_is_not_a_release(agent: Agent) -> None:
    assert agent.runs("nightly").installation.running() is None


def test_replacement_that_cannot_be_run_is_named() -> None:
    with raises_code(ConsumerError, "program_not_run") as caught:
        replace_process(Replacement("a", "/nowhere/acm-agent"))
    assert str(caught.value).startswith("/nowhere/acm-agent ")


def test_upgrade_while_another_is_on_trial_is_refused(agent: Agent) -> None:
    assert not trial_is_pending(config(upgrade=agent.settings()))
    agent.on_trial()
    assert trial_is_pending(config(upgrade=agent.settings()))
    assert not trial_is_pending(config())
    with raises_code(UpgradeError, "on_trial"):
        agent.handler().execute(command("b"), PARAMETERS, agent.context())


STEPS = ["downloaded", "unpacked", "tested", "recorded", "switched"]


def test_good_package_is_put_on_trial(agent: Agent) -> None:
    done = agent.execute(agent.package("exit 0"))
    assert done == AgentRestart(str(agent.installation.launcher))
    assert agent.steps.names == STEPS
    assert agent.installation.trial() == UpgradeTrial("a", "1.0.0", "1.2.0", 60.0)
    assert (agent.installation.on_trial, agent.installation.current) == (True, "1.2.0")
    assert list(agent.installation.root.glob("package*")) == []


def test_downgrade_is_refused_unless_allowed(agent: Agent) -> None:
    parameters = agent.package("exit 0")
    agent.runs("1.3.0")
    with raises_code(UpgradeError, "downgrade") as caught:
        agent.execute(parameters)
    assert "1.2.0 is older than 1.3.0" in str(caught.value)
    assert agent.installation.trial() is None
    assert isinstance(agent.execute(replace(parameters, allow_downgrade=True)), AgentRestart)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("why", ["cancelled", "timed_out"])
def test_cancel_or_timeout_before_the_trial_changes_nothing(agent: Agent, step: str, why: str) -> None:
    agent.installation.switch_to("1.0.0")
    parameters = agent.package("exit 0")
    agent.steps.at = (step, agent.cancelled.set if why == "cancelled" else lambda: agent.clock.turn(61.0))
    with raises_code(UpgradeError, why):
        agent.execute(parameters)
    assert (agent.installation.on_trial, agent.installation.current) == (False, "1.0.0")
    assert list(agent.installation.root.glob("package*")) == []


def test_hung_self_test_is_ended(agent: Agent) -> None:
    agent.clock = SystemClock()
    done = agent.execute(agent.package("echo I wait; exec sleep 600"))
    assert isinstance(done, Result)
    assert "1.2.0 did not end in time" in done.message
    assert (done.code, done.output and done.output.stdout) == (ErrorCode.FAILED, "I wait\n")
    assert not agent.installation.release("1.2.0").exists()


def test_trial_does_not_begin_if_the_launcher_does_not_start_the_old_release(agent: Agent) -> None:
    agent.clock = SystemClock()
    agent.test_replacement = StartTest({})
    old = agent.installation.program("1.0.0")
    old.write_text("#!/bin/sh\necho the configuration is broken >&2\nexit 3\n")
    old.chmod(0o755)
    agent.installation.switch_to("1.0.0")
    parameters = agent.package("exit 0")
    refused = agent.execute(parameters)
    assert isinstance(refused, Result)
    assert (refused.code, "exit status 3: the configuration is broken" in refused.message) == (ErrorCode.FAILED, True)
    assert (agent.installation.on_trial, agent.installation.current) == (False, "1.0.0")
    agent.installation.launcher.unlink()
    refused = agent.execute(parameters)
    assert isinstance(refused, Result)
    assert str(agent.installation.launcher) in refused.message
    agent.installation.make()
    old.write_text("#!/bin/sh\nexit 0\n")
    assert agent.execute(parameters) == AgentRestart(str(agent.installation.launcher))


def test_disk_failure_during_an_upgrade_names_the_file(agent: Agent) -> None:
    parameters = agent.package("exit 0")
    (agent.installation.root / "trial.json").mkdir()
    with raises_code(UpgradeError, "disk_failed") as caught:
        agent.execute(parameters)
    assert str(agent.installation.root / ".trial.json.part") in str(caught.value)
    assert not agent.installation.on_trial


def test_upgrade_starts_over_after_a_crash_before_the_trial(agent: Agent) -> None:
    with raises_code(DownloadError, "not_a_file"):
        agent.probe()
    agent.settled(command_id="another", state=TrialState.PROVED)
    with pytest.raises(DownloadError):
        agent.probe()


def test_upgrade_starts_over_if_only_the_trial_was_recorded(agent: Agent) -> None:
    agent.settled()
    with pytest.raises(DownloadError):
        agent.probe()


def test_record_that_was_set_aside_during_the_trial_ends_the_upgrade(agent: Agent) -> None:
    agent.on_trial()
    agent.installation.switch_to("1.0.0")
    agent.installation.set_record_aside()
    agent.installation.end_trial()
    done = agent.probe()
    assert isinstance(done, Result)
    assert (done.code, "trial.damaged" in done.message, "1.0.0 runs" in done.message) == (ErrorCode.FAILED, True, True)
    agent.execute(agent.package("exit 0"))
    assert not (agent.installation.root / "trial.damaged").exists()


def test_upgrade_that_expired_before_its_trial_is_interrupted(agent: Agent) -> None:
    done = agent.probe(expires_at=agent.clock.now() - timedelta(seconds=1))
    assert isinstance(done, Result)
    assert (done.code, done.data) == (ErrorCode.INTERRUPTED, None)


def test_new_version_proves_itself_and_the_watcher_ends_the_trial(agent: Agent) -> None:
    agent.on_trial()
    lacks = iter(["there is no connection to the broker", "it has stored nothing", None])
    agent.readiness_problem = lambda: next(lacks)
    assert agent.runs("1.1.0").probe() == AgentRestart()
    assert (agent.state(), agent.steps.names) == (TrialState.PROVED, ["started", "proved"])


@pytest.mark.parametrize("deadline", [60.0, 10.0])
def test_new_version_that_is_not_ready_fails_with_the_reason(agent: Agent, deadline: float) -> None:
    agent.on_trial(watch_s=20.0)
    agent.deadline = deadline
    began = agent.clock.monotonic()

    def readiness_problem() -> str:
        agent.clock.turn(5.0)
        return "it has stored nothing"

    agent.readiness_problem = readiness_problem
    assert agent.runs("1.1.0").probe() == AgentRestart()
    trial = agent.installation.trial()
    assert trial is not None
    assert (trial.state, trial.reason) == (TrialState.FAILED, "it did not prove itself in time: it has stored nothing")
    assert agent.clock.monotonic() - began == min(20.0, deadline)


def test_cancel_fails_the_trial(agent: Agent) -> None:
    agent.on_trial()
    agent.readiness_problem = lambda: "it has stored nothing"
    agent.cancelled.set()
    assert agent.runs("1.1.0").probe() == AgentRestart()
    assert agent.state() is TrialState.FAILED


def test_proof_that_cannot_be_recorded_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with directory_of_nobody() as directory, as_nobody():
        agent = Agent(directory / "root", monkeypatch)
        agent.on_trial()
        agent.installation.root.chmod(0o555)
        assert agent.runs("1.1.0").probe() == AgentRestart()
        assert agent.state() is TrialState.ON_TRIAL


def test_process_that_stays_reports_the_outcome(agent: Agent) -> None:
    agent.settled(state=TrialState.PROVED)
    done = agent.runs("1.1.0").probe()
    assert isinstance(done, Result)
    assert (done.code, done.data) == (None, UpgradeAgentData("upgraded", "1.1.0", "1.1.0", "1.0.0"))
    agent.settled(state=TrialState.FAILED, reason="it was blue", stderr="blue\n")
    done = agent.runs("1.0.0").probe()
    assert isinstance(done, Result)
    assert done.message == "Version 1.1.0 was tried and rolled back: it was blue; version 1.0.0 runs again."
    assert done.output == Output("", "blue\n", False)
    assert (done.code, done.data) == (
        ErrorCode.FAILED,
        UpgradeAgentData("rolled_back", "1.0.0", "1.1.0", "1.0.0", "it was blue"),
    )


@pytest.mark.parametrize(
    ("state", "running", "became"),
    [(TrialState.PROVED, "1.0.0", "proved itself"), (TrialState.FAILED, "1.1.0", r"failed \(it was blue\)")],
)
def test_version_started_by_something_else_fails(agent: Agent, state: TrialState, running: str, became: str) -> None:
    agent.settled(state=state, reason="it was blue")
    done = agent.runs(running).probe()
    assert isinstance(done, Result)
    assert done.code is ErrorCode.FAILED
    assert done.message == (
        f"Version 1.1.0 {became.replace(chr(92), '')}, but {running} runs now, and not because of this command."
    )


def test_new_release_ends_the_trial_if_the_old_one_is_gone(agent: Agent) -> None:
    agent.on_trial()
    agent.installation.program("1.0.0").unlink()
    done = agent.runs("1.1.0").probe()
    assert isinstance(done, Result)
    assert (done.code, agent.state()) == (None, TrialState.PROVED)
    assert not (agent.installation.root / "watcher").is_symlink()


def test_release_is_watched_until_it_has_run_for_some_minutes(agent: Agent) -> None:
    agent.on_trial(state=TrialState.PROVED, runs=2)
    agent.runs("1.1.0")
    assert not agent.installation.on_trial
    assert isinstance(agent.probe(), Result)
    assert agent.installation.watcher == "1.0.0"
    watch = AfterProof(agent.settings(), agent.clock)
    assert watch.may_go_back
    agent.clock.turn(WATCH_S - 1)
    watch.step()
    assert agent.installation.watcher == "1.0.0"
    agent.clock.turn(1)
    watch.step()
    assert (agent.installation.watcher, watch.next_due(), watch.may_go_back) == (None, None, False)


def test_watch_ends_though_its_record_could_not_be_read_at_the_start(agent: Agent) -> None:
    agent.on_trial(state=TrialState.PROVED, runs=2)
    record = agent.installation.root / "trial.json"
    record.rename(record.with_suffix(".away"))
    record.symlink_to(record.name)  # an error of the disk (ELOOP), neither damage nor a missing file
    watch = AfterProof(agent.runs("1.1.0").settings(), agent.clock)
    record.unlink()
    record.with_suffix(".away").rename(record)
    agent.clock.turn(WATCH_S)
    watch.step()
    assert (agent.installation.watcher, watch.next_due()) == (None, None)


def test_start_that_ended_as_intended_is_not_counted(agent: Agent) -> None:
    agent.on_trial(state=TrialState.PROVED, runs=3)
    AfterProof(agent.runs("1.1.0").settings(), agent.clock).ended_as_intended()
    trial = agent.installation.trial()
    assert trial is not None
    assert trial.runs == 1


def test_watch_ends_no_later_trial(agent: Agent) -> None:
    agent.on_trial(state=TrialState.PROVED, runs=1)
    watch = AfterProof(agent.runs("1.1.0").settings(), agent.clock)
    agent.installation.begin_trial(UpgradeTrial("b", "1.1.0", "1.2.0", 30.0))
    agent.clock.turn(WATCH_S)
    watch.step()
    assert agent.installation.on_trial


def test_rollback_after_the_proof_is_a_problem_of_the_agent(agent: Agent) -> None:
    agent.settled(state=TrialState.FAILED, reason="it ended 3 times", runs=3)
    watch = AfterProof(agent.runs("1.0.0").settings(), agent.clock)
    assert watch.failure() == "Version 1.1.0 was rolled back to 1.0.0: it ended 3 times."
    assert watch.running_version == "1.0.0"
    assert AfterProof(agent.runs("1.1.0").settings(), agent.clock).failure() is None


def test_old_releases_are_pruned_except_those_of_the_upgrade(agent: Agent) -> None:
    for version in ("0.8.0", "0.10.0", "notes"):
        agent.installation.release(version).mkdir()
    agent.settled(state=TrialState.PROVED)
    agent.runs("1.1.0").probe()
    assert {path.name for path in agent.installation.release("").iterdir()} == {"1.0.0", "1.1.0", "notes"}
    agent.installation.release("0.8.0").mkdir()
    agent.installation.release("0.10.0").mkdir()
    assert agent.installation.spare(3, {"1.0.0", "1.1.0"}) == [agent.installation.release("0.8.0")]


def test_what_earlier_attempts_left_is_named_and_stops_no_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    with directory_of_nobody() as directory:
        with as_nobody():
            agent = Agent(directory / "root", monkeypatch).runs("1.0.0")
            parameters = agent.package("exit 0")
            agent.installation.release("1.2.0").mkdir()
        releases = agent.installation.release("")
        for place in (releases / ".1.2.0.part", releases / "1.2.0", agent.installation.root / "package.part"):
            (place / "of-root" / "inner").mkdir(parents=True)
        with as_nobody():
            agent.steps.at = ("unpacked", lambda: os.seteuid(0))  # that user may not be able to read Python
            assert isinstance(agent.execute(parameters), AgentRestart)
        assert agent.installation.program("1.2.0").is_file()
        problem = str(agent.leftovers.problem)
        assert problem.count("of-root/inner: Permission denied") == 3
        assert f"{releases}/.1.2.0.part/of-root/inner" in problem


def test_upgrade_is_refused_while_another_runs(agent: Agent) -> None:
    agent.runs("1.0.0")
    with agent.installation.upgrade_lock(), raises_code(UpgradeError, "upgrade_running"):
        agent.execute(PARAMETERS)
