"""The built-in handlers, on the services of tests/integration/test_service.py's kind."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from broker.contract.commands import COMMAND_TYPES, InvalidParameters, parse_parameters
from broker.contract.commands.fetch_config import FetchConfigData
from broker.contract.commands.restart_agent import RestartAgentData
from broker.contract.commands.set_group import SetGroupData
from broker.contract.messages import JsonObject
from broker.contract.states import ErrorCode, State
from broker.system.files import write_durably
from consumer.errors import HandlerTableError, ServiceError
from consumer.handler import AgentRestart, Context, Handler, Interruption, Result
from consumer.handlers.built_in import added_handlers, built_in_handlers
from consumer.handlers.restart_agent import AgentProcess
from consumer.ports import Service, ServiceState, Stop, StoredCommand
from consumer.services import CallbackService, NoService
from consumer.settings import AgentConfig, ServiceConfig, UpgradeConfig
from consumer.store.groups import Groups
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, command, config

CONFIG = config(broker="mqtt://me:hush@127.0.0.1:1883", service=ServiceConfig("child", ("x",), settle_s=0.01))
STORED = StoredCommand("c/1", command("a"), State.PROCESSING, NOW, NOW, "i1")
ACTS = ["restart-agent", "start-agent", "stop-agent"]


def context(service: Service | None = None, state: Path = Path("/nowhere"), **members: Any) -> Context:
    return replace(Context(TurnedClock(), service or NoService(), state), **members)


def handlers(
    settings: AgentConfig = CONFIG, *, restarted_by: str | None = None, origins: Mapping[str, str] | None = None
) -> Mapping[str, Handler[Any]]:
    """The built-in handlers; `unused` is what no handler of this module's tests works with."""
    unused: Any = None
    return built_in_handlers(
        settings,
        AgentProcess("i2", restarted_by),
        origins=origins or {},
        responses=unused,
        relocation=unused,
        trusted_keys=unused,
        readiness_problem=unused,
    )


def probe(around: Context, restarted_by: str | None = None) -> Result:
    ask = handlers(restarted_by=restarted_by)["restart-agent"].probe
    assert ask is not None
    result = ask(STORED, around)
    assert isinstance(result, Result)
    return result


def execute(
    command_type: str, parameters: JsonObject, around: Context, settings: AgentConfig = CONFIG, **members: Any
) -> Result | AgentRestart:
    handler = handlers(settings, **members)[command_type]
    given = parse_parameters(command_type, handler.parameters, parameters)
    return handler.execute(command("a", command_type=command_type), given, around)


@pytest.fixture
def runs() -> list[str]:
    return []


@pytest.fixture
def service(runs: list[str], tmp_path: Path) -> CallbackService:
    starts = iter(f"s{number}" for number in range(1, 9))
    return CallbackService(
        lambda: runs.append(next(starts)),
        runs.clear,
        lambda: runs[-1] if runs else None,
        tmp_path / "stopped",
    )


def test_each_command_type_has_one_handler_with_its_parameters() -> None:
    table = handlers()
    assert {name: handler.parameters for name, handler in table.items()} == {
        name: kind.parameters for name, kind in COMMAND_TYPES.items()
    }
    assert all(name == handler.command_type for name, handler in table.items())
    assert all((it.probe is not None) == (it.interruption is Interruption.PROBE) for it in table.values())


def test_second_handler_for_a_built_in_type_is_refused() -> None:
    with raises_code(HandlerTableError, "duplicate_type"):
        added_handlers([handlers()["restart-agent"]])


def test_restart_without_a_service_asks_for_a_new_process() -> None:
    assert execute("restart-agent", {}, context()) == AgentRestart()


def test_service_restart_is_proved_by_a_new_incarnation(service: CallbackService, tmp_path: Path) -> None:
    service.start(0.0)
    done = execute("restart-agent", {}, context(service, tmp_path))
    assert isinstance(done, Result)
    assert (done.code, done.data) == (
        None,
        RestartAgentData("callbacks", "s1", "s2"),
    )


def test_restart_without_a_new_incarnation_fails(tmp_path: Path) -> None:
    stuck = CallbackService(lambda: None, lambda: None, lambda: "s1", tmp_path / "stopped")
    done = execute("restart-agent", {}, context(stuck, tmp_path))
    assert isinstance(done, Result)
    assert (done.code, done.data) == (ErrorCode.FAILED, RestartAgentData("callbacks", "s1", "s1"))


@pytest.mark.parametrize(("restarted_by", "by"), [("a", "command"), ("other", "outside"), (None, "outside")])
def test_new_process_proves_the_restart_and_reports_its_cause(
    restarted_by: str | None, by: Literal["command", "outside"]
) -> None:
    done = probe(context(), restarted_by)
    assert (done.code, done.data) == (None, RestartAgentData("none", "i1", "i2", by))


class Died(BaseException):
    pass


class DyingService(CallbackService):
    """The agent dies while it restarts this service."""

    def restart(self, deadline: float) -> ServiceState:
        raise Died


def die_in_restart(service: CallbackService, state: Path) -> None:
    dying = DyingService(lambda: None, lambda: None, lambda: service.state().incarnation, state / "stopped")
    with pytest.raises(Died):
        execute("restart-agent", {}, context(dying, state))


def test_death_before_the_service_restart_is_interrupted(service: CallbackService, tmp_path: Path) -> None:
    service.start(0.0)
    done = probe(context(service, tmp_path))
    assert (done.code, done.data) == (ErrorCode.INTERRUPTED, None)


def test_death_during_the_service_restart_is_decided_by_incarnations(service: CallbackService, tmp_path: Path) -> None:
    service.start(0.0)
    die_in_restart(service, tmp_path)
    same = probe(context(service, tmp_path))
    assert (same.code, same.data) == (ErrorCode.INTERRUPTED, RestartAgentData("callbacks", "s1", "s1"))
    service.restart(0.0)
    new = probe(context(service, tmp_path))
    assert (new.code, new.data) == (None, RestartAgentData("callbacks", "s1", "s2"))


@pytest.mark.parametrize("mark", [b"", b"\xff", b"5", b"null", b"[1]"])
def test_damaged_mark_of_a_restart_is_an_error(service: CallbackService, tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "service-restart").write_bytes(mark)
    with raises_code(ServiceError, "mark_not_read"):
        probe(context(service, tmp_path))


def test_probe_waits_for_a_service_restart_under_way(service: CallbackService, tmp_path: Path) -> None:
    service.start(0.0)
    die_in_restart(service, tmp_path)
    service.stop(0.0)
    gone = probe(context(service, tmp_path, deadline=0.0))
    assert (gone.code, gone.data) == (ErrorCode.INTERRUPTED, RestartAgentData("callbacks", "s1", None))
    answers: list[Result] = []
    waiting = threading.Thread(target=lambda: answers.append(probe(context(service, tmp_path))), daemon=True)
    waiting.start()
    service.start(0.0)
    waiting.join(20)
    assert [answer.code for answer in answers] == [None]


def test_service_is_not_restarted_if_the_mark_cannot_be_written(service: CallbackService) -> None:
    first = service.start(0.0)
    with raises_code(ServiceError, "mark_not_written") as caught:
        execute("restart-agent", {}, context(service))
    assert "/nowhere/service-restart" in str(caught.value)
    assert service.state() == first


@dataclass(frozen=True)
class StubbornService:
    """Ends only when it is killed."""

    def state(self) -> ServiceState:
        return ServiceState("child", True, "s1")

    def start(self, deadline: float) -> ServiceState:
        return self.state()

    def stop(self, deadline: float) -> ServiceState:
        return ServiceState("child", False, stop=Stop(killed=True, grace_s=2.0))

    def restart(self, deadline: float) -> ServiceState:
        return ServiceState("child", True, "s2", stop=Stop(killed=True, grace_s=2.0))


@pytest.mark.parametrize("verb", ["restart-agent", "stop-agent"])
def test_result_shows_that_the_service_was_killed(verb: str, tmp_path: Path) -> None:
    done = execute(verb, {}, context(StubbornService(), tmp_path))
    assert isinstance(done, Result)
    assert done.code is None
    assert Stop(killed=True, grace_s=2.0).in_words() in done.message
    assert (done.data.killed, done.data.stop_grace_s) == (True, 2.0)


@pytest.mark.parametrize("verb", ACTS)
def test_delay_is_waited_out(verb: str, service: CallbackService, tmp_path: Path) -> None:
    service.start(0.0)
    done = execute(verb, {"delay_s": 0.01}, context(service, tmp_path))
    assert isinstance(done, Result)
    assert done.code is None


@pytest.mark.parametrize("verb", ACTS)
def test_cancel_during_the_delay_does_nothing(verb: str, service: CallbackService, tmp_path: Path) -> None:
    first = service.start(0.0)
    cancelled = threading.Event()
    cancelled.set()
    done = execute(verb, {"delay_s": 80000}, context(service, tmp_path, cancelled=cancelled))
    assert isinstance(done, Result)
    assert (done.code, service.state()) == (ErrorCode.CANCELLED, first)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ACTS)
def test_delay_as_long_as_the_timeout_is_refused(verb: str, service: CallbackService, tmp_path: Path) -> None:
    clock = TurnedClock()
    around = context(service, tmp_path, clock=clock, deadline=clock.monotonic() + 60)
    done = execute(verb, {"delay_s": 60}, around)
    assert isinstance(done, Result)
    assert (done.code, service.state().running) == (ErrorCode.INVALID, False)
    assert "delay_s is 60, but" in done.message


@pytest.mark.parametrize("verb", ["restart-agent", "start-agent", "stop-agent"])
def test_no_restart_while_an_upgrade_is_on_trial(verb: str, service: CallbackService, tmp_path: Path) -> None:
    program = tmp_path / "releases" / "1.0.0" / "bin" / "acm-agent"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "watcher").symlink_to("releases/1.0.0")
    upgrading = msgspec.structs.replace(CONFIG, state=str(tmp_path), upgrade=UpgradeConfig(root=str(tmp_path)))
    service.start(0.0)
    before = service.state()
    done = execute(verb, {}, context(service), upgrading)
    assert isinstance(done, Result)
    assert (done.code, done.data) == (ErrorCode.FAILED, None)
    assert service.state() == before


@pytest.mark.parametrize("delay_s", [-1, 86401, "5", None])
def test_invalid_delay_is_refused(delay_s: Any) -> None:
    with pytest.raises(InvalidParameters, match="delay_s"):
        execute("start-agent", {"delay_s": delay_s}, context())


def test_stop_and_start(service: CallbackService) -> None:
    service.start(0.0)
    for verb, running in (("stop-agent", False), ("start-agent", True)):
        done = execute(verb, {}, context(service))
        assert isinstance(done, Result)
        assert done.code is None
        assert service.state() == ServiceState("callbacks", running, "s2" if running else None)


@pytest.mark.parametrize(("verb", "incarnation"), [("stop-agent", "s1"), ("start-agent", None)])
def test_stop_or_start_without_effect_fails(tmp_path: Path, verb: str, incarnation: str | None) -> None:
    stuck = CallbackService(lambda: None, lambda: None, lambda: incarnation, tmp_path / "stopped")
    done = execute(verb, {}, context(stuck))
    assert isinstance(done, Result)
    assert done.code is ErrorCode.FAILED


@pytest.mark.parametrize("verb", ["stop-agent", "start-agent"])
def test_stop_and_start_without_a_service_fail(verb: str) -> None:
    with pytest.raises(ServiceError):
        execute(verb, {}, context())


def test_configuration_is_shown_with_masked_secrets_and_its_hash() -> None:
    done = execute("get-agent-configuration", {}, context())
    assert isinstance(done, Result)
    assert done.data.configuration["broker"] == "mqtt://me:********@127.0.0.1:1883"
    assert "hush" not in json.dumps(done.data.configuration)
    canonical = json.dumps(done.data.configuration, sort_keys=True, separators=(",", ":")).encode()
    assert done.data.sha256 == hashlib.sha256(canonical).hexdigest()


def test_each_configuration_value_names_its_source() -> None:
    origins = {"broker": "environment ACM_BROKER", "service.kind": "file /etc/agent.toml"}
    done = execute("get-agent-configuration", {"effective": True}, context(), origins=origins)
    assert isinstance(done, Result)
    sources = done.data.sources
    assert sources["broker"] == "environment ACM_BROKER"
    assert sources["service.kind"] == "file /etc/agent.toml"
    assert sources["service.argv"] == "program"
    assert sources["kill_grace_s"] == sources["configuration.keep"] == "default"
    one = execute("get-agent-configuration", {"effective": True, "section": "service"}, context(), origins=origins)
    assert isinstance(one, Result)
    assert one.data.sources.keys() == {
        f"service.{name}" for name in ("kind", "argv", "unit", "stop_grace_s", "settle_s")
    }


def test_single_section_of_the_configuration_is_shown() -> None:
    done = execute("get-agent-configuration", {"section": "agent"}, context())
    assert isinstance(done, Result)
    assert done.data.configuration == {"agent": "web-01"}
    unknown = execute("get-agent-configuration", {"section": "nose"}, context())
    assert isinstance(unknown, Result)
    assert (unknown.code, "agent, broker" in unknown.message) == (ErrorCode.INVALID, True)


def test_groups_are_kept(tmp_path: Path) -> None:
    around = context(state=tmp_path)
    assert Groups(tmp_path).current is None
    done = execute("set-group", {"groups": ["web", "edge", "web"]}, around)
    assert isinstance(done, Result)
    assert (done.code, done.data) == (None, SetGroupData(("web", "edge")))
    assert Groups(tmp_path).current == ("web", "edge")
    execute("set-group", {"groups": []}, around)
    assert Groups(tmp_path).current == ()


def test_invalid_group_name_is_refused() -> None:
    with pytest.raises(InvalidParameters, match="groups"):
        execute("set-group", {"groups": ["../x"]}, context())


def test_groups_are_visible_at_once_and_none_if_unreadable(tmp_path: Path) -> None:
    shown = Groups(tmp_path)
    assert shown.current is None
    Groups(tmp_path).set(("web",))
    assert shown.current == ("web",)
    write_durably(tmp_path / "groups.json", b"{")
    assert shown.current is None


def test_fetch_config_result_requests_the_groups_configuration() -> None:
    done = execute("fetch-config", {}, context())
    assert isinstance(done, Result)
    assert (done.code, done.data) == (None, FetchConfigData("group-configuration"))
