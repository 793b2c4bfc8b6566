"""apply-centralized-configuration with a real service, real programs and the real clock (logic: see tests/unit)."""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from broker.contract.commands import parse_parameters
from broker.contract.commands.apply_centralized_configuration import (
    ApplyCentralizedConfiguration,
    ApplyCentralizedConfigurationData,
)
from broker.contract.configurations import DiffSize
from broker.contract.states import ErrorCode, State
from consumer.handler import Context, Result
from consumer.handlers.apply_centralized_configuration import handler
from consumer.ports import Service, StoredCommand
from consumer.services.managed import managed_service
from consumer.settings import AgentConfig, CentralizedConfig, ServiceConfig
from consumer.system.clock import SystemClock
from tests.support.configuration_steps import (
    BETTER,
    DEADLY,
    DEAF,
    GOOD,
    STEPS,
    TYPE,
    Killed,
    Steps,
    active_files,
    leftovers,
    sha256,
)
from tests.support.makers import NOW, command
from tests.support.waiting import wait_for

SERVICE = str(Path(__file__).parents[1] / "support" / "reloading_service.sh")


class Site:
    """One agent's directory and service; calling `agent` again simulates a new process of the agent."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.said = directory / "said"
        self.state = directory / "state"
        self.state.mkdir()
        self.root = self.state / "configuration"
        self.incarnations = 0
        self.steps = Steps()
        self.services: list[Service] = []
        self.settings: dict[str, Any] = {
            "file": "sensor.toml",
            "reload": "signal",
            "check": ("/bin/sh", "-c", '! grep -n refuse "$0"', "{file}"),
            "health_check": ("/usr/bin/cmp", "-s", "{file}", str(self.said)),
            "grace_s": 0.8,
            **settings,
        }
        self.start_agent()

    def start_agent(self) -> None:
        self.incarnations += 1
        argv = ("/bin/sh", SERVICE, str(self.root / "current" / "sensor.toml"), str(self.said))
        self.config = AgentConfig(
            agent="web-01",
            broker="mqtt://127.0.0.1",
            state=str(self.state),
            service=ServiceConfig("child", argv, settle_s=0.2),
            configuration=CentralizedConfig(**self.settings),
        )
        self.service = managed_service(self.config, SystemClock()).service
        self.services.append(self.service)

    def start_service(self) -> None:
        self.service.start(monotonic() + 10)
        wait_for(self.said.exists, "the service to have started")

    def context(self, **members: Any) -> Context:
        known = {"deadline": monotonic() + 30, "observer": self.steps, **members}
        return Context(SystemClock(), self.service, self.state, **known)

    def apply(self, name: str = "c", context: Context | None = None, **parameters: Any) -> Result:
        wanted = parse_parameters(TYPE, ApplyCentralizedConfiguration, parameters)
        done = handler(self.config).execute(command(name, command_type=TYPE), wanted, context or self.context())
        assert isinstance(done, Result)
        return done

    def probe(self, name: str = "c") -> Result:
        stored = StoredCommand("c/1", command(name, command_type=TYPE), State.PROCESSING, NOW, NOW, "i1")
        probe = handler(self.config).probe
        assert probe is not None
        done = probe(stored, self.context())
        assert isinstance(done, Result)
        return done

    def active(self) -> dict[str, str]:
        return active_files(self.root)

    def loads(self) -> list[str]:
        return Path(f"{self.said}.log").read_text().splitlines()

    def leftovers(self) -> set[str]:
        return leftovers(self.root)


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**settings: Any) -> Site:
        made.append(Site(tmp_path, **settings))
        return made[-1]

    yield make
    for service in (service for site in made for service in reversed(site.services)):
        service.stop(monotonic())


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A service that runs with the good configuration."""
    site = make_site()
    assert site.apply("first", content=GOOD).code is None
    site.start_service()
    site.steps.names.clear()
    return site


def test_applied_configuration_is_active_and_used_by_the_service(site: Site) -> None:
    done = site.apply(content=BETTER, group="web")
    data = done.data
    assert isinstance(data, ApplyCentralizedConfigurationData)
    assert (done.code, data.action, data.previous) == (None, "applied", f"000001-{sha256(GOOD)[:12]}")
    assert data.active is not None
    assert (data.active.name, data.active.sha256, data.active.group, data.active.files) == (
        f"000002-{sha256(BETTER)[:12]}",
        sha256(BETTER),
        "web",
        1,
    )
    assert data.diff == DiffSize(0, 1, 0, 1, 1)
    assert data.active.name in done.message
    assert site.active() == {"sensor.toml": BETTER}
    assert site.said.read_text() == BETTER
    assert site.loads()[-1] == "reload interval = 2"
    assert site.steps.names == list(STEPS)
    assert site.leftovers() == set()


def test_hanging_check_is_ended_with_the_command(make_site: Callable[..., Site]) -> None:
    site = make_site(check=("/bin/sleep", "600"))
    done = site.apply(content=GOOD, context=site.context(deadline=monotonic() + 0.3))
    assert (done.code, done.data.action) == (ErrorCode.TIMED_OUT, "not_applied")
    assert "did not end in time" in done.message
    cancelled = threading.Event()
    cancelled.set()
    done = site.apply(content=GOOD, context=site.context(cancelled=cancelled))
    assert (done.code, done.data.active) == (ErrorCode.CANCELLED, None)
    assert "No centralized configuration is active, as before." in done.message
    assert not (site.root / "current").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (DEAF, r"The health check /usr/bin/cmp did not succeed within 0\.8 s: it ended with exit status 1\."),
        (DEADLY, r"The service died after the reload\."),
    ],
)
def test_unhealthy_configuration_is_rolled_back(site: Site, content: str, said: str) -> None:
    done = site.apply(content=content)
    first = f"000001-{sha256(GOOD)[:12]}"
    assert (done.code, done.data.action, done.data.active.name) == (ErrorCode.FAILED, "rolled_back", first)
    assert (done.data.previous, done.data.diff) == (first, DiffSize(0, 1, 0, 1, 1))
    assert re.search(said, done.data.reason)
    assert re.search(f"rolled back: {said} Generation {first} is active again", done.message)
    assert (site.active(), site.leftovers()) == ({"sensor.toml": GOOD}, set())
    assert site.steps.names[-1] == "rolled_back"
    assert site.service.state().running
    wait_for(lambda: site.loads()[-1].endswith("interval = 1"), "the service to have read it again")
    assert [path.name for path in (site.root / "generations").iterdir() if path.is_dir()] == [first]


def test_check_that_cannot_be_started_rolls_nothing_back(make_site: Callable[..., Site], tmp_path: Path) -> None:
    shell, check, armed = tmp_path / "shell", tmp_path / "check", tmp_path / "armed"
    shell.symlink_to("/bin/sh")
    check.write_text(f"#!{shell}\nexit 0\n")
    check.chmod(0o755)
    loses_the_shell = ("/bin/sh", "-c", f"! rm {armed} 2>/dev/null || rm {shell}")
    site = make_site(reload="command", reload_command=loses_the_shell, health_check=(str(check),), grace_s=0.4)
    site.start_service()
    assert site.apply("a", content=GOOD).code is None
    armed.touch()
    done = site.apply("b", content=BETTER)
    assert (done.code, done.data.action, site.active()) == (ErrorCode.FAILED, "applied", {"sensor.toml": BETTER})
    assert f"its interpreter '{shell}' does not exist" in done.message
    shell.symlink_to("/bin/sh")
    again = site.apply("c", content=BETTER)
    assert (again.code, again.data.action) == (None, "applied")


def test_missing_interpreter_of_the_keeper_neither_stops_the_service_nor_rolls_back(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(reload="restart", health_check=(), grace_s=0.3)
    site.start_service()
    assert site.apply("a", content=GOOD).code is None
    running = site.service.state()
    with monkeypatch.context() as patch:
        site.steps.at["swapped"] = lambda: patch.setattr(sys, "executable", "/nowhere/python")
        done = site.apply("b", content=BETTER)
    del site.steps.at["swapped"]
    assert (done.code, done.data.action, site.active()) == (ErrorCode.FAILED, "applied", {"sensor.toml": BETTER})
    assert ("/nowhere/python" in done.message, site.service.state()) == (True, running)
    assert site.apply("c", content=BETTER).code is None
    assert site.service.state().incarnation != running.incarnation


def test_service_is_reloaded_by_command_and_by_restart(make_site: Callable[..., Site], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    site = make_site(reload="command", reload_command=("/bin/cp", "{file}", str(seen)), health_check=(), grace_s=0.3)
    site.start_service()
    assert site.apply("a", content=GOOD).code is None
    assert seen.read_text() == GOOD
    site.settings["reload"] = "restart"
    site.start_agent()
    site.start_service()
    before = site.service.state().incarnation
    done = site.apply("b", content=BETTER)
    assert (done.code, site.service.state().running) == (None, True)
    assert site.service.state().incarnation != before
    wait_for(lambda: site.loads()[-1] == "start interval = 2", "the service to have read it")


def test_stopped_agent_leaves_the_decision_to_the_next_one(site: Site) -> None:
    stopping = threading.Event()
    site.steps.at["reloaded"] = lambda: (stopping.set(), site.service.stop(monotonic() + 5))
    site.apply(content=BETTER, context=site.context(stopping=stopping))
    assert site.active() == {"sensor.toml": BETTER}
    del site.steps.at["reloaded"]
    site.start_agent()
    site.start_service()
    assert site.probe().data.action == "applied"
    assert site.active() == {"sensor.toml": BETTER}


def killed() -> None:
    raise Killed


@pytest.mark.parametrize(("content", "step"), [(BETTER, "reloaded"), (DEADLY, "rolled_back")])
def test_crash_at_any_step_leaves_a_complete_generation(site: Site, content: str, step: str) -> None:
    site.steps.at[step] = killed
    old, new, good = {"sensor.toml": GOOD}, {"sensor.toml": content}, content == BETTER
    with pytest.raises(Killed):
        site.apply(content=content)
    assert site.active() == (old if step in ("downloaded", "staged", "validated", "rolled_back") else new)
    site.steps.at.clear()
    site.start_agent()
    result = site.probe()
    swapped = step not in ("downloaded", "staged", "validated")
    action = ("applied" if good else "rolled_back") if swapped else "not_applied"
    code = (None if good else ErrorCode.FAILED) if swapped else ErrorCode.INTERRUPTED
    assert (result.code, result.data.action) == (code, action)
    assert site.active() == (new if swapped and good else old)
    assert result.data.active.sha256 == sha256(site.active()["sensor.toml"])
    assert site.leftovers() == set()
    if swapped:
        assert site.service.state().running
        wanted = f"start {site.active()['sensor.toml'].strip()}"
        wait_for(lambda: site.loads()[-1] == wanted, "the service to have read it")
