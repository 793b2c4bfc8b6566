"""apply-centralized-configuration on real files, with a service and programs in memory and a turned clock."""

import bz2
import gzip
import hashlib
import io
import itertools
import json
import lzma
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.contract.codec import MAX_FRAME_BYTES
from broker.contract.commands import parse_parameters
from broker.contract.commands.apply_centralized_configuration import (
    ApplyCentralizedConfiguration,
    ApplyCentralizedConfigurationData,
)
from broker.contract.commands.get_agent_configuration import GetAgentConfiguration
from broker.contract.configurations import DiffSize
from broker.contract.messages import Output
from broker.contract.states import ErrorCode
from broker.system.lock import locked
from consumer.configuration.apply import ConfigurationUpdate
from consumer.configuration.effects import Effects
from consumer.errors import ProgramError
from consumer.handler import Context, Result
from consumer.handlers import get_agent_configuration
from consumer.ports import Service
from consumer.services.none import NoService
from consumer.settings import AgentConfig, CentralizedConfig, ServiceConfig
from consumer.system.leftovers import Leftovers
from consumer.system.programs import Bounds, Ended
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
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.reloading_service import FakeReloadingService, Readings
from tests.support.makers import command
from tests.support.unprivileged import as_nobody, directory_of_nobody


def program_ended(exit_status: int, stdout: str = "", stderr: str = "", *, overdue: bool = False) -> Ended:
    return Ended(exit_status, Output(stdout, stderr, False), overdue)


class Site:
    """One agent's directory, service and programs; `start_agent` replaces the agent's process."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.state = directory / "state"
        self.state.mkdir()
        self.root = self.state / "configuration"
        self.clock = TurnedClock()
        self.steps = Steps()
        self.readings = Readings()
        self._incarnations = map(str, itertools.count(1))
        self.programs: dict[str, Callable[[Sequence[str]], Ended]] = {"check": self._check, "health": self._health}
        self.leftovers_of_agent = Leftovers()
        self.settings: dict[str, Any] = {
            "file": "sensor.toml",
            "reload": "signal",
            "check": ("check", "{file}"),
            "health_check": ("health", "{file}"),
            "grace_s": 0.8,
            **settings,
        }
        self.start_agent()

    def start_agent(self, *, manages_service: bool = True) -> None:
        self.config = AgentConfig(
            agent="web-01",
            broker="mqtt://127.0.0.1",
            state=str(self.state),
            service=ServiceConfig("child", ("service",)) if manages_service else ServiceConfig(),
            configuration=CentralizedConfig(**self.settings),
        )
        self.fake = FakeReloadingService(
            self.root / "current" / "sensor.toml", self.readings, lambda: next(self._incarnations)
        )
        self.service: Service = self.fake if manages_service else NoService()

    def start_service(self) -> None:
        self.service.start(self.clock.monotonic() + 10)

    def context(self, **members: Any) -> Context:
        known = {
            "deadline": self.clock.monotonic() + 30,
            "observer": self.steps,
            "leftovers": self.leftovers_of_agent,
            **members,
        }
        return Context(self.clock, self.service, self.state, **known)

    def application(self, name: str, context: Context) -> ConfigurationUpdate:
        effects = Effects(self._run, self.fake.send_signal, self._wait, self._missing)
        return ConfigurationUpdate(command(name, command_type=TYPE), context, self.config, effects)

    def apply(self, name: str = "c", context: Context | None = None, **parameters: Any) -> Result:
        wanted = parse_parameters(TYPE, ApplyCentralizedConfiguration, parameters)
        return self.application(name, context or self.context()).apply(wanted)

    def probe(self, name: str = "c") -> Result:
        return self.application(name, self.context()).resume()

    def show(self, **parameters: Any) -> Result:
        done = get_agent_configuration.handler(self.config, {}).execute(
            command("g"), GetAgentConfiguration(**parameters), self.context()
        )
        assert isinstance(done, Result)
        return done

    def active(self) -> dict[str, str]:
        return active_files(self.root)

    def loads(self) -> list[str]:
        return list(self.readings.loads)

    def leftovers(self) -> set[str]:
        return leftovers(self.root)

    def _run(self, argv: Sequence[str], bounds: Bounds) -> Ended:
        if argv[0] not in self.programs:
            raise ProgramError(f"{argv[0]} could not be started: No such file or directory.")
        if bounds.cancelled.is_set() or self.clock.monotonic() >= bounds.deadline:
            return program_ended(-15, overdue=True)
        return self.programs[argv[0]](argv)

    def _missing(self, program: str) -> str | None:
        return None if program in self.programs else f"{program} does not exist"

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        self.clock.turn(seconds)
        return event.is_set()

    @staticmethod
    def _check(argv: Sequence[str]) -> Ended:
        refused = "refuse" in Path(argv[1]).read_text()
        return program_ended(1, "1:refuse = true\n") if refused else program_ended(0)

    def _health(self, argv: Sequence[str]) -> Ended:
        return program_ended(int(Path(argv[1]).read_text() != self.readings.used))


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Site]:
    return lambda **settings: Site(tmp_path, **settings)


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A service that runs with the good configuration."""
    site = make_site()
    assert site.apply("first", content=GOOD).code is None
    site.start_service()
    site.steps.names.clear()
    return site


def archive(path: Path, files: dict[str, str]) -> dict[str, Any]:
    with tarfile.open(path, "w:gz") as target:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            target.addfile(info, io.BytesIO(text.encode()))
    return artifact(path)


def artifact(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"url": path.as_uri(), "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


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
    assert site.readings.used == BETTER
    assert site.loads()[-1] == "reload interval = 2"
    assert site.steps.names == list(STEPS)
    assert site.leftovers() == set()


def test_the_same_hash_again_is_a_success_without_a_reload(site: Site) -> None:
    loads = site.loads()
    done = site.apply(content=GOOD, group="web")
    assert (done.code, done.data.action, done.data.active.group) == (None, "unchanged", "web")
    assert "nothing was done" in done.message
    assert (site.loads(), site.steps.names) == (loads, [])
    again = site.apply(artifact={"url": "file:///nowhere", "sha256": sha256(GOOD), "size": len(GOOD)})
    assert (again.code, again.data.action, again.data.active.group) == (None, "unchanged", "web")


def test_the_same_hash_is_applied_again_when_the_files_were_altered(site: Site) -> None:
    (site.root / "current" / "sensor.toml").write_text("interval = 9\n")
    done = site.apply(content=GOOD)
    assert (done.code, done.data.action, site.active()) == (None, "applied", {"sensor.toml": GOOD})


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"content": "interval ="}, r"sensor\.toml is not valid TOML: Invalid value"),
        ({"content": f"a{'.a' * 100_000} = 1"}, r"sensor\.toml is not valid TOML: a key has more than 100 parts"),
        ({"content": "a: [1", "file": "a.yaml"}, r"a\.yaml is not valid YAML: .*line 2"),
        ({"content": "a: *b", "file": "a.yml"}, r"a\.yml is not valid YAML: the alias \*b has no anchor before it"),
        ({"content": "{} // why", "file": "a.json"}, r"a\.json is not valid JSON: .* set configuration\.syntax"),
        ({"content": '{"a": }', "file": "a.json"}, r"a\.json is not valid JSON: .*line 1"),
        ({"content": "[" * 100_000, "file": "a.json"}, r"a\.json is not valid JSON: it is nested too deeply"),
        ({"content": "#" * (4 << 20) + "##"}, r"sensor\.toml has more than 4194304 bytes"),
        ({"content": "a = '\ud800'"}, "cannot be encoded as UTF-8"),
        ({"content": "refuse = true"}, r"The check check rejects the files: it ended with exit status 1\."),
        (
            {"artifact": {"url": "file:///nowhere", "sha256": sha256("x"), "size": 1}},
            "not a regular file on this machine",
        ),
    ],
)
def test_invalid_content_changes_nothing(site: Site, parameters: dict[str, Any], said: str) -> None:
    loads, active = site.loads(), f"000001-{sha256(GOOD)[:12]}"
    done = site.apply(**parameters)
    assert (done.code, done.data.action, done.data.active.name) == (ErrorCode.FAILED, "not_applied", active)
    assert re.search(said, done.message)
    assert done.message.endswith(f"Generation {active} stays active.")
    assert (site.active(), site.loads(), site.leftovers()) == ({"sensor.toml": GOOD}, loads, set())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yaml", "password: !secret db\nrest: !include x\n"),
        ("a.yaml", "%TAG !e! tag:example.org,2026:\n---\na: !e!b {c: 1}\n...\n---\nsecond: document\n"),
        ("a.yaml", "op: =\nrelease: 2026-02-30\n? [web, 443]\n: tls\n<<: 5\n"),
        ("a.yaml", "a: !!bool maybe\nb: !!timestamp foo\nc: !!int ''\nd: !!float ''\ne: !!binary x\n"),
        ("a.yaml", "!!python/object/apply:os.system [touch /nowhere]\n"),
        ("a.yaml", "a: &a [*a]\na: again\n"),
        ("a.yaml", "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 64))),
        ("a.yaml", ""),
        ("a.json", '{"n": ' + "9" * 5000 + ', "n": 1e99999}'),
        ("a.jsonc", '// why\n{"a": "// text", /* and\nhow */ "b": [1, 2,],}\n'),
        ("a.jsonl", '{"a": 1}\r\n\n{"b": "\u2028"}\n'),
        ("deep/a.list.json", "anything"),
        ("b.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a xmlns:d="e">&b;</a>'),
        ("b.ini", "[a]\nb\n[a]\n%c = d\n"),
    ],
)
def test_syntax_is_that_of_the_format_and_of_the_settings(
    make_site: Callable[..., Site], tmp_path: Path, name: str, content: str
) -> None:
    syntax = {".jsonc": "jsonc", ".JSONL": "json-lines", "a.list.json": "none"}
    site = make_site(reload="none", check=(), health_check=(), syntax=syntax)
    done = site.apply(artifact=archive(tmp_path / "a.tar.gz", {name: content}))
    assert done.data.action == "applied", done.message
    assert site.active() == {name: content.replace("\r\n", "\n")}
    assert site.show(section="centralized").code is None


def test_output_of_the_check_is_in_the_result(site: Site) -> None:
    done = site.apply(content="refuse = true")
    assert done.output is not None
    assert done.output.stdout == "1:refuse = true\n"


def test_files_are_recorded_as_the_check_has_left_them(make_site: Callable[..., Site]) -> None:
    site = make_site(reload="none", health_check=(), check=("tidies", "{file}"))

    def tidies(argv: Sequence[str]) -> Ended:
        file = Path(argv[1])
        file.write_text(file.read_text().strip())
        file.with_name("cache").mkdir()
        for path in (file.with_name("cache") / "x", file.with_name(".lock")):
            path.touch()
        return program_ended(0)

    site.programs["tidies"] = tidies
    assert site.apply("first", content=GOOD).data.action == "applied"
    assert (site.active(), site.show(section="centralized").data.altered) == ({"sensor.toml": GOOD.strip()}, ())
    assert site.apply("again", content=GOOD).data.action == "unchanged"
    site.programs["tidies"] = lambda argv: Path(argv[1]).unlink() or program_ended(0)
    done = site.apply(content=BETTER)
    assert (done.data.action, "After the check, " in done.message) == ("not_applied", True)


def test_hanging_check_is_ended_with_the_command(make_site: Callable[..., Site]) -> None:
    site = make_site(check=("hangs",))
    site.programs["hangs"] = lambda argv: (site.clock.turn(0.3), program_ended(-15, overdue=True))[1]
    done = site.apply(content=GOOD, context=site.context(deadline=site.clock.monotonic() + 0.3))
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
        (DEAF, r"The health check health did not succeed within 0\.8 s: it ended with exit status 1\."),
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
    assert site.loads()[-1].endswith("interval = 1")
    assert [path.name for path in (site.root / "generations").iterdir() if path.is_dir()] == [first]


def test_a_first_configuration_that_fails_leaves_none(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start_service()
    done = site.apply(content=DEADLY)
    assert (done.code, done.data.action, done.data.active) == (ErrorCode.FAILED, "rolled_back", None)
    assert "No centralized configuration is active again." in done.message
    assert not (site.root / "current").is_symlink()
    assert site.service.state().running


def test_rollback_to_an_unhealthy_generation_is_reported(make_site: Callable[..., Site]) -> None:
    site = make_site(health_check=(), grace_s=0.3)
    site.start_service()
    assert site.apply("first", content=GOOD).code is None
    site.settings["health_check"] = ("ill",)
    site.programs["ill"] = lambda argv: program_ended(7, stderr="ill\n")
    site.start_agent()
    site.start_service()
    done = site.apply(content=BETTER)
    assert (done.code, done.data.action) == (ErrorCode.FAILED, "rolled_back")
    assert (
        "The service is not healthy with the previous generation either: The health check ill did not succeed"
        in done.message
    )
    assert done.output is not None
    assert done.output.stderr == "ill\n"


def test_impossible_rollback_is_reported() -> None:
    def breaks_the_disk(argv: Sequence[str]) -> Ended:
        if "interval = 1" in Path(argv[1]).read_text():
            return program_ended(0)
        site.root.chmod(0o555)
        return program_ended(1)

    with directory_of_nobody() as directory, as_nobody():
        site = Site(directory, reload="none", health_check=("breaks", "{file}"), grace_s=0.3)
        site.programs["breaks"] = breaks_the_disk
        site.start_agent(manages_service=False)
        assert site.apply("first", content=GOOD).code is None
        done = site.apply(content=BETTER)
        assert (done.code, done.data.action, done.data.active.sha256) == (ErrorCode.FAILED, "applied", sha256(BETTER))
        assert "is active: it was not checked, or could not be rolled back" in done.message
        assert site.active() == {"sensor.toml": BETTER}


def test_failed_reload_is_rolled_back(make_site: Callable[..., Site]) -> None:
    site = make_site(reload="command", reload_command=("fails",))
    site.programs["fails"] = lambda argv: program_ended(5)
    site.start_service()
    done = site.apply(content=GOOD)
    assert (done.code, done.data.action, done.data.active) == (ErrorCode.FAILED, "rolled_back", None)
    assert "command fails ended with exit status 5" in done.message


@pytest.mark.parametrize(
    "settings",
    [
        {"reload": "command", "reload_command": ("/nowhere/program",)},
        {"health_check": ("/nowhere/program",)},
    ],
)
def test_nothing_is_tried_without_the_programs_that_reload_and_check(
    make_site: Callable[..., Site], settings: dict[str, Any]
) -> None:
    site = make_site(**settings)
    site.start_service()
    done = site.apply(content=GOOD)
    assert (done.code, done.data.action, done.data.active) == (ErrorCode.FAILED, "not_applied", None)
    assert "The configuration was not tried: /nowhere/program does not exist." in done.message


def test_service_is_reloaded_by_command_and_by_restart(make_site: Callable[..., Site], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    site = make_site(reload="command", reload_command=("copy", "{file}", str(seen)), health_check=(), grace_s=0.3)
    site.programs["copy"] = lambda argv: (shutil.copyfile(argv[1], argv[2]), program_ended(0))[1]
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
    assert site.loads()[-1] == "start interval = 2"


def test_stopped_service_stays_stopped(site: Site) -> None:
    site.service.stop(site.clock.monotonic() + 10)
    done = site.apply(content=DEADLY)
    assert (done.code, done.data.action) == (None, "applied")
    assert "The service does not run; it reads the configuration when it starts." in done.message
    assert not site.service.state().running


def test_without_a_service_the_health_check_decides(make_site: Callable[..., Site]) -> None:
    site = make_site(reload="none", health_check=("grep", "{file}"), grace_s=0.3)
    site.programs["grep"] = lambda argv: program_ended(int(not re.search("interval = [12]", Path(argv[1]).read_text())))
    site.start_agent(manages_service=False)
    assert site.apply("a", content=GOOD).data.action == "applied"
    assert site.apply("b", content=BETTER).data.action == "applied"
    assert site.apply("c", content=DEAF).data.action == "rolled_back"
    assert site.active() == {"sensor.toml": BETTER}


def test_a_cancel_after_the_swap_rolls_back(site: Site) -> None:
    cancelled = threading.Event()
    site.steps.at["reloaded"] = cancelled.set
    done = site.apply(content=BETTER, context=site.context(cancelled=cancelled))
    assert (done.code, done.data.action) == (ErrorCode.CANCELLED, "rolled_back")
    assert site.active() == {"sensor.toml": GOOD}
    assert site.readings.used == GOOD


def test_health_watch_cut_short_by_the_deadline_is_a_failure(make_site: Callable[..., Site]) -> None:
    site = make_site(grace_s=30.0)
    site.start_service()
    done = site.apply(content=BETTER, context=site.context(deadline=site.clock.monotonic() + 4))
    assert (done.code, done.data.action) == (ErrorCode.FAILED, "rolled_back")
    assert "watched for the whole grace period" in done.data.reason


def test_stopped_agent_leaves_the_decision_to_the_next_one(site: Site) -> None:
    stopping = threading.Event()
    site.steps.at["reloaded"] = lambda: (stopping.set(), site.service.stop(site.clock.monotonic() + 5))
    site.apply(content=BETTER, context=site.context(stopping=stopping))
    assert site.active() == {"sensor.toml": BETTER}
    del site.steps.at["reloaded"]
    site.start_agent()
    site.start_service()
    assert site.probe().data.action == "applied"
    assert site.active() == {"sensor.toml": BETTER}


def test_cancel_before_the_swap_keeps_the_old_generation(site: Site) -> None:
    cancelled = threading.Event()
    site.steps.at["validated"] = cancelled.set
    done = site.apply(content=BETTER, context=site.context(cancelled=cancelled))
    assert (done.code, done.data.action, site.active()) == (ErrorCode.CANCELLED, "not_applied", {"sensor.toml": GOOD})


def test_deadline_before_the_swap_keeps_the_old_generation(site: Site) -> None:
    site.steps.at["validated"] = lambda: site.clock.turn(30)
    done = site.apply(content=BETTER)
    assert (done.code, done.data.action, site.active()) == (ErrorCode.TIMED_OUT, "not_applied", {"sensor.toml": GOOD})


def test_an_archive_of_several_files(site: Site, tmp_path: Path) -> None:
    files = {"sensor.toml": BETTER, "conf.d/a.yaml": "a: 1\n", "conf.d/b.json": "{}"}
    done = site.apply(artifact=archive(tmp_path / "two.tar.gz", files))
    assert (done.code, done.data.active.files, done.data.diff) == (None, 3, DiffSize(2, 1, 0, 3, 1))
    assert site.active() == files
    del files["conf.d/b.json"]
    done = site.apply("d", artifact=archive(tmp_path / "three", files))
    assert (done.data.action, done.data.diff) == ("applied", DiffSize(0, 0, 1, 0, 1))
    assert site.active() == files


def test_downloaded_file_gets_the_given_name(site: Site, tmp_path: Path) -> None:
    (tmp_path / "delivered").write_text('{"a": 1}')
    site.settings["health_check"] = ()
    site.start_agent()
    done = site.apply(artifact=artifact(tmp_path / "delivered"), file="sensor.json")
    assert (done.code, site.active()) == (None, {"sensor.json": '{"a": 1}'})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../../../outside": "x"}, "must stay inside"),
        ({"/outside": "x"}, "must stay inside"),
        ({}, "The archive contains no file"),
        ({"sensor.toml": "interval ="}, "sensor.toml is not valid TOML"),
        ({"deep/er/x.json": "{"}, "deep/er/x.json is not valid JSON"),
    ],
)
def test_a_bad_archive_changes_nothing(site: Site, tmp_path: Path, files: dict[str, str], said: str) -> None:
    done = site.apply(artifact=archive(tmp_path / "bad.tgz", files))
    assert (done.code, done.data.action, site.active()) == (ErrorCode.FAILED, "not_applied", {"sensor.toml": GOOD})
    assert said in done.message
    assert (site.leftovers(), list(tmp_path.glob("**/outside"))) == (set(), [])


def test_a_damaged_archive_is_not_taken_for_a_single_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "bad.tar.gz").write_bytes(b"interval = 1\n")
    done = site.apply(artifact=artifact(tmp_path / "bad.tar.gz"), file="config")
    assert (done.code, site.active()) == (ErrorCode.FAILED, {"sensor.toml": GOOD})
    assert "The archive is damaged or cut short" in done.message


def test_some_older_generations_are_kept(make_site: Callable[..., Site]) -> None:
    site = make_site(keep=2, health_check=(), reload="none")
    for number in range(5):
        assert site.apply(f"c{number}", content=f"interval = {number}\n").data.action == "applied"
    names = sorted(path.name.split("-")[0] for path in (site.root / "generations").iterdir())
    assert names == ["000003", "000003", "000004", "000004", "000005", "000005"]
    assert site.active() == {"sensor.toml": "interval = 4\n"}


def test_the_directory_is_private_unless_the_operator_made_it(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(health_check=(), reload="none")
    site.apply("a", content=GOOD)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (site.root, site.root / "generations")}
    assert modes == {"configuration": 0o700, "generations": 0o755}
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    site.settings["directory"] = str(shared)
    site.start_agent()
    site.apply("b", content=GOOD)
    assert shared.stat().st_mode & 0o777 == 0o750
    assert (shared / "current").resolve().stat().st_mode & 0o777 == 0o755
    assert (shared / "current" / "sensor.toml").stat().st_mode & 0o777 == 0o644


def test_a_directory_that_cannot_be_used_is_an_error(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.root.write_text("in the way")
    done = site.apply(content=GOOD)
    assert (done.code, done.data.action) == (ErrorCode.FAILED, "not_applied")
    assert f"{site.root} cannot be used: File exists." in done.message


def test_error_of_the_disk_that_hides_the_active_generation_is_one_sentence(site: Site) -> None:
    site.root.rename(site.root.with_name("moved"))
    site.root.symlink_to(site.root)  # a loop: every access below it fails with ELOOP
    for done in (site.apply(content=BETTER), site.probe()):
        assert (done.code, done.data) == (ErrorCode.FAILED, None)
        assert "Which generation is active cannot be read" in done.message
    site.root.unlink()
    site.root.with_name("moved").rename(site.root)
    assert site.active() == {"sensor.toml": GOOD}


def test_two_applications_in_one_directory_are_refused(site: Site) -> None:
    with locked(site.root / "lock"):
        done = site.apply(content=BETTER)
    assert (done.code, site.active()) == (ErrorCode.FAILED, {"sensor.toml": GOOD})
    assert "Another configuration is being applied" in done.message


def test_applied_files_are_shown_with_secrets_masked(site: Site, tmp_path: Path) -> None:
    large = "x = 1\n" * 20_000
    files = {"sensor.toml": f"{GOOD}token = 'hush'\n", "large.conf": large, "conf.d/a.yaml": "a: {password: hush}\n"}
    applied = site.apply(artifact=archive(tmp_path / "a.tar.gz", files)).data.active
    shown = site.show(section="centralized")
    assert (shown.code, shown.data.applied, shown.data.altered) == (None, applied, ())
    assert [file.path for file in shown.data.files] == ["conf.d/a.yaml", "large.conf", "sensor.toml"]
    assert [file.size for file in shown.data.files] == [len(text) for _, text in sorted(files.items())]
    assert "hush" not in repr(shown)
    assert shown.data.files[1].content is None
    assert json.loads(shown.data.files[2].content) == {"interval": 1, "token": "********"}
    (site.root / "current" / "sensor.toml").write_text("interval =")
    (site.root / "current" / "new").write_text("x")
    shown = site.show(section="centralized")
    assert shown.data.altered == ("new", "sensor.toml")
    assert "altered since: new, sensor.toml" in shown.message
    assert shown.data.files[2].content is None
    assert site.show().data.altered == ("new", "sensor.toml")


def test_nothing_is_shown_before_the_first_configuration(make_site: Callable[..., Site]) -> None:
    shown = make_site().show(section="centralized")
    assert (shown.code, shown.data.applied, shown.message) == (None, None, "No centralized configuration is active.")


def test_link_changed_by_hand_is_not_a_generation(site: Site) -> None:
    (site.root / "current").unlink()
    (site.root / "current").symlink_to("/nowhere")
    shown = site.show(section="centralized")
    assert (shown.code, shown.data, str(site.root / "current") in shown.message) == (ErrorCode.FAILED, None, True)
    assert site.apply(content=BETTER).data.action == "applied"
    assert site.active() == {"sensor.toml": BETTER}


def test_rollback_restores_a_link_that_was_changed_by_hand(site: Site, tmp_path: Path) -> None:
    by_hand = tmp_path / "by-hand"
    by_hand.mkdir()
    (by_hand / "sensor.toml").write_text(GOOD)
    (site.root / "current").unlink()
    (site.root / "current").symlink_to(by_hand)
    done = site.apply(content=DEADLY)
    assert done.data.action == "rolled_back"
    assert f"{by_hand}, to which `current` had been changed by hand, is active again" in done.message
    assert os.readlink(site.root / "current") == str(by_hand)
    assert len(list((site.root / "generations").glob("*.json"))) == 2


@pytest.mark.parametrize(
    "target",
    [
        "{root}/generations/{name}",
        "./generations/{name}",
        "../by-hand/{name}",
        "{root}/../by-hand/generations/{name}",
        "generations/000007-gone",
        "/nowhere",
        "current",
    ],
)
def test_rollback_restores_exactly_the_link_that_was_found(site: Site, target: str) -> None:
    name = Path(os.readlink(site.root / "current")).name
    for place in ("by-hand", "by-hand/generations"):
        shutil.copytree(site.root / "generations" / name, site.root.parent / place / name)
    target = target.format(root=site.root, name=name)
    (site.root / "current").unlink()
    (site.root / "current").symlink_to(target)
    done = site.apply(content=DEADLY)
    assert done.data.action == "rolled_back"
    assert os.readlink(site.root / "current") == target
    refused = site.apply("refused", content="refuse = true\n")
    assert (refused.data.action, os.readlink(site.root / "current")) == ("not_applied", target)
    assert f"{target}, to which `current` was changed by hand, stays active." in refused.message or "gone" in target


def test_crash_after_the_swap_restores_the_link_that_was_found(site: Site, tmp_path: Path) -> None:
    (site.root / "current").unlink()
    (site.root / "current").symlink_to(tmp_path)

    def die() -> None:
        raise Killed

    site.steps.at["swapped"] = die
    with pytest.raises(Killed):
        site.apply(content=DEADLY)
    site.start_agent()
    assert site.probe().data.action == "rolled_back"
    assert os.readlink(site.root / "current") == str(tmp_path)


def test_record_that_cannot_be_read_stops_no_configuration(site: Site) -> None:
    name = os.readlink(site.root / "current")
    record = site.root / f"{name}.json"
    record.unlink()
    record.symlink_to(record.name)  # a loop: it is there, and cannot be read
    assert site.apply(content=GOOD).data.action == "applied"
    assert site.active() == {"sensor.toml": GOOD}


def test_link_in_place_of_the_generations_is_refused_and_not_followed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    (site.root / "generations").rename(site.root / "moved")
    (site.root / "generations").symlink_to(tmp_path / "private")
    done = site.apply(content=BETTER)
    assert (done.code, f"{site.root / 'generations'} cannot be used" in done.message) == (ErrorCode.FAILED, True)
    assert (os.listdir(tmp_path / "private"), (tmp_path / "private").stat().st_mode & 0o777) == ([], 0o700)


def test_pipe_in_place_of_the_journal_is_an_error(site: Site) -> None:
    (site.root / "journal.json").unlink()
    os.mkfifo(site.root / "journal.json")  # nothing writes to it, so reading it would never end
    assert "journal.damaged" in site.probe("first").message


def test_directory_in_the_place_of_the_link_is_refused_before_anything_is_done(site: Site) -> None:
    (site.root / "current").unlink()
    (site.root / "current").mkdir()
    done = site.apply(content=BETTER)
    assert (done.code, done.data.action) == (ErrorCode.FAILED, "not_applied")
    assert f"{site.root / 'current'} is not a link" in done.message
    assert "downloaded" not in str(site.steps.names)


def test_file_of_the_service_that_cannot_be_read_stops_no_configuration(site: Site) -> None:
    (site.root / "current" / "lock").symlink_to("/proc/self/mem")  # reading it fails with EIO, for root too
    assert site.show(section="centralized").data.altered == ("lock",)
    (site.root / "current" / "sensor.toml").unlink()
    (site.root / "current" / "sensor.toml").symlink_to("/proc/self/mem")
    assert site.show(section="centralized").data.files == ()
    assert site.apply(content=GOOD).data.action == "applied"
    assert site.active() == {"sensor.toml": GOOD}


def test_too_deep_archive_is_refused_and_stops_no_later_configuration(site: Site, tmp_path: Path) -> None:
    done = site.apply(artifact=archive(tmp_path / "deep.tar.gz", {"d/" * 1200 + "x.conf": "x"}))
    assert (done.code, site.active()) == (ErrorCode.FAILED, {"sensor.toml": GOOD})
    assert "is more than 32 directories deep" in done.message
    assert site.apply(content=BETTER).data.action == "applied"


def test_deep_directories_that_were_left_are_removed_and_stop_nothing(make_site: Callable[..., Site]) -> None:
    site = make_site(keep=1, health_check=(), reload="none")
    assert site.apply("c", content="interval = 0\n").data.action == "applied"
    for place in (site.root / "current", site.root / "staging-left"):
        place.mkdir(exist_ok=True)
        make_deep(place)
    for number in range(1, 5):
        assert site.apply(f"c{number}", content=f"interval = {number}\n").data.action == "applied"
    numbers = {path.name.split("-")[0] for path in (site.root / "generations").iterdir()}
    assert numbers == {"000004", "000005"}
    assert site.leftovers() == set()
    assert not (site.root / "staging-left").exists()


def test_private_directories_of_the_service_stop_nothing_and_are_named() -> None:
    with directory_of_nobody() as directory:
        with as_nobody():
            site = Site(directory, keep=1, health_check=(), reload="none")
            assert site.apply("c0", content="interval = 0\n").data.action == "applied"
        for place in (site.root / "current" / "cache", site.root / "staging-left"):
            (place / "private").mkdir(parents=True)
            (place / "private" / "file").touch()
            (place / "private").chmod(0o700)
        with as_nobody():
            assert site.show(section="centralized").data.altered == ("cache/private",)
            for number in range(1, 5):
                assert site.apply(f"c{number}", content=f"interval = {number}\n").data.action == "applied"
            names = {path.name for path in (site.root / "generations").iterdir() if path.is_dir()}
            problem = site.leftovers_of_agent.problem
        assert {name.split("-")[0] for name in names} == {"000001", "000004", "000005"}
        assert problem is not None
        assert str(site.root / "staging-left" / "private") in problem
        assert "/cache/private: Permission denied" in problem
        shutil.rmtree(site.root / "staging-left")
        shutil.rmtree(next((site.root / "generations").glob("000001-*/")))
        assert site.leftovers_of_agent.problem is None


def test_whatever_the_service_made_of_its_files_stops_no_configuration(site: Site, tmp_path: Path) -> None:
    current = site.root / "current"
    (current / "grown.db").touch()
    os.truncate(current / "grown.db", 1 << 42)  # sparse: it would be read for hours
    os.truncate(current / "sensor.toml", 1 << 42)
    os.mkfifo(current / "pipe")
    (current / "all").symlink_to("/")
    Path(os.fsdecode(os.path.join(os.fsencode(current), b"\xff\n"))).touch()
    shown = site.show(section="centralized")
    assert (shown.data.altered, shown.data.files) == (("all", "grown.db", "sensor.toml", "\\udcff\n"), ())
    done = site.apply(content=BETTER)
    assert (done.data.action, done.data.diff) == ("applied", DiffSize(0, 1, 0, 1, 0))
    current.joinpath("sensor.toml").unlink()
    os.mkfifo(current / "sensor.toml")  # nothing writes to it, so reading it would never end
    assert site.show(section="centralized").data.altered == ("sensor.toml",)
    assert site.apply(content=GOOD).data.action == "applied"


def test_lines_of_a_large_file_are_not_counted(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(health_check=(), check=(), reload="none", file="large")
    (tmp_path / "large").write_bytes(b"line\n" * (1 << 20))
    assert site.apply(artifact=artifact(tmp_path / "large")).data.diff == DiffSize(1, 0, 0, 0, 0)


def test_directory_that_can_be_listed_and_not_searched_stops_no_configuration() -> None:
    with directory_of_nobody() as directory, as_nobody():
        site = Site(directory, health_check=(), reload="none")
        assert site.apply("c0", content=GOOD).data.action == "applied"
        (site.root / "current" / "cache").mkdir()
        (site.root / "current" / "cache" / "file").touch()
        (site.root / "current" / "cache").chmod(0o444)
        assert site.show(section="centralized").data.altered == ("cache/file",)
        assert site.apply("c1", content=GOOD).data.action == "applied"


def make_deep(directory: Path) -> None:
    """Make directories that shutil.rmtree cannot remove before Python 3.12, since it is recursive."""
    handle = os.open(directory, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.zip", b"PK\3\4" + bytes(100), "a zip archive"),
        ("c", b"PK\3\4" + bytes(100), "a zip archive"),
        ("c.tar.gz", b"PK\3\4" + bytes(100), "a zip archive"),
        ("c", lzma.compress(b"x"), "an xz file"),
        ("c", bz2.compress(b"x"), "a bzip2 file"),
        ("c", b"\x28\xb5\x2f\xfd" + bytes(100), "a zstd file"),
        ("c", b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive"),
        ("c", lzma.compress(b"x", lzma.FORMAT_ALONE), "an lzma file"),
        ("c", b"\x89LZO\0\r\n\x1a\n" + bytes(100), "an lzop file"),
        ("c", b"\x50\x2a\x4d\x18" + bytes(100), "a zstd or lz4 file"),
        ("c", b"\x5f\x2a\x4d\x18" + bytes(100), "a zstd or lz4 file"),
        ("c", b"\x27\xb5\x2f\xfd" + bytes(100), "a zstd file"),
        ("c", b"\2\x21\x4c\x18" + bytes(100), "an lz4 file"),
        ("c", b"\xff\6\0\0sNaPpY" + bytes(100), "a snappy file"),
        ("c", b"LRZI" + bytes(100), "an lrzip file"),
        ("c", b"BZ3v1" + bytes(100), "a bzip3 file"),
        ("c", b"\xc7\x71" + bytes(100), "a cpio archive"),
        ("c", b"MSCF\0\0\0\0" + bytes(100), "a cab archive"),
        ("c", b"\x60\xea" + bytes(100), "an arj archive"),
        ("c", b"\x1a\x25-lh5-" + bytes(100), "an lha archive"),
        ("c", b"xar!\0\x1c" + bytes(100), "a xar archive"),
        ("c", b"hsqs" + bytes(100), "a squashfs image"),
        ("c", gzip.compress(b"x" * 5000, mtime=0)[:-9], "a gzip file that contains no tar archive, or a damaged one"),
        (
            "c",
            gzip.compress(gzip.compress(b"x", mtime=0), mtime=0),
            "a gzip file that contains no tar archive, or a damaged one",
        ),
    ],
)
def test_archive_of_another_kind_is_refused_by_name(
    site: Site, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = site.apply(artifact=artifact(tmp_path / name), file="sensor.conf")
    assert (done.code, site.active()) == (ErrorCode.FAILED, {"sensor.toml": GOOD})
    assert f"The artifact is {said}; send a tar or tar.gz archive" in done.message


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("length", [512, 1024, 10240])
def test_tar_archive_of_no_file_is_refused(
    site: Site, tmp_path: Path, pack: Callable[[bytes], bytes], length: int
) -> None:
    (tmp_path / "c").write_bytes(pack(bytes(length)))
    done = site.apply(artifact=artifact(tmp_path / "c"), file="sensor.conf")
    assert (done.code, site.active()) == (ErrorCode.FAILED, {"sensor.toml": GOOD})
    assert "The archive contains no file" in done.message


def test_archive_of_another_kind_is_stored_under_a_name_of_that_kind(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(health_check=(), check=(), reload="none")
    (tmp_path / "geo").write_bytes(gzip.compress(b"x"))
    assert site.apply(artifact=artifact(tmp_path / "geo"), file="geo.dat.gz").data.action == "applied"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [120, 300, 700, 1700])
def test_tar_archive_that_is_cut_short_is_refused(site: Site, tmp_path: Path, form: int, length: int) -> None:
    with tarfile.open(tmp_path / "c", "w", format=form) as target:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = 600
            target.addfile(info, io.BytesIO(bytes(600)))
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:length])
    done = site.apply(artifact=artifact(tmp_path / "c"), file="config")
    assert (done.code, site.active()) == (ErrorCode.FAILED, {"sensor.toml": GOOD})
    assert "archive" in done.message  # and not what the service makes of it


@pytest.mark.parametrize("name", ["sensor.toml", "sensor.json", "sensor.yaml"])
def test_byte_order_mark_and_carriage_returns_are_read(make_site: Callable[..., Site], name: str) -> None:
    site = make_site(health_check=(), check=(), reload="none")
    text = {
        "sensor.toml": "a = 1\r\nb = 2\r\n",
        "sensor.json": '{"a": 1,\r\n"b": 2}',
        "sensor.yaml": "a: 1\r\nb: 2\r\n",
    }
    content = "\ufeff" + text[name]
    assert site.apply(content=content, file=name).code is None
    (shown,) = site.show(section="centralized").data.files
    assert json.loads(shown.content) == {"a": 1, "b": 2}


def test_text_in_utf_16_is_refused_by_name(site: Site, tmp_path: Path) -> None:
    (tmp_path / "delivered").write_bytes(GOOD.encode("utf-16"))
    done = site.apply(artifact=artifact(tmp_path / "delivered"))
    assert "sensor.toml is not valid TOML: it is UTF-16 text; save it as UTF-8." in done.message


def test_large_files_are_left_out_so_that_the_result_fits(site: Site, tmp_path: Path) -> None:
    files = {"sensor.toml": GOOD, **{f"{number:03}.conf": "\x01" * 20_000 for number in range(110)}}
    assert site.apply(artifact=archive(tmp_path / "a.tar.gz", files)).code is None
    data = site.show(section="centralized").data
    assert [file.path for file in data.files] == sorted(files)[:100]
    assert [file.content is None for file in data.files[:3]] == [False, True, True]
    assert len(msgspec.json.encode(data)) < MAX_FRAME_BYTES


def killed() -> None:
    raise Killed


@pytest.mark.parametrize(
    ("content", "step"),
    [*((BETTER, step) for step in STEPS), *((DEADLY, step) for step in (*STEPS[:-1], "rolled_back"))],
)
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
        assert site.loads()[-1] == wanted


def test_a_crash_between_the_record_and_the_swap_leaves_the_old_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace

    def dies_at_the_link(self: Path, target: Path) -> Path:
        if Path(target).name == "current":
            raise Killed
        rename(self, target)
        return Path(target)

    monkeypatch.setattr(Path, "replace", dies_at_the_link)
    with pytest.raises(Killed):
        site.apply(content=BETTER)
    monkeypatch.undo()
    site.start_agent()
    result = site.probe()
    assert (result.code, result.data.action, site.active()) == (
        ErrorCode.INTERRUPTED,
        "not_applied",
        {"sensor.toml": GOOD},
    )
    site.start_service()
    assert site.apply("next", content=DEADLY).data.action == "rolled_back"
    assert site.apply("after", content=BETTER).data.active.name.startswith("000002-")


def test_result_decided_before_a_crash_is_repeated(site: Site) -> None:
    first = site.apply(content=DEAF)
    loads = site.loads()
    again = site.probe()
    assert (again.message, again.code, again.data) == (first.message, first.code, first.data)
    assert site.loads() == loads
    other = site.probe("another command")
    assert (other.code, other.data.action) == (ErrorCode.INTERRUPTED, "not_applied")


def test_damaged_journal_is_an_error(site: Site) -> None:
    (site.root / "journal.json").write_text("{")
    done = site.probe()
    assert done.code is ErrorCode.FAILED
    assert "journal.damaged" in done.message
    assert (site.root / "journal.damaged").exists()
    assert site.active() == {"sensor.toml": GOOD}
