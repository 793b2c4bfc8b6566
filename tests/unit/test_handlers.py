"""The built-in handlers, on the services of tests/unit/test_service.py's kind."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from broker.contract.commands import COMMAND_TYPES, parse_parameters
from broker.contract.commands.restart_agent import RestartAgentData
from broker.contract.messages import JsonObject
from broker.contract.states import ErrorCode, State
from consumer.config import ServiceConfig
from consumer.errors import HandlerTableError, ServiceError
from consumer.handlers import HANDLERS, handler_table
from consumer.handlers.base import AgentRestart, Context, Interruption, Result
from consumer.ports import Service, ServiceState, StoredCommand
from consumer.service import CallbackService, NoService, Wish
from tests.fakes.clock import TurnedClock
from tests.makers import NOW, command, config

CONFIG = config(broker="mqtt://me:hush@127.0.0.1:1883", service=ServiceConfig("child", ("x",)))


def context(service: Service | None = None, **members: Any) -> Context:
    return replace(Context(TurnedClock(), service or NoService(), CONFIG, "i2"), **members)


def execute(command_type: str, parameters: JsonObject, around: Context) -> Result | AgentRestart:
    handler = handler_table(HANDLERS)[command_type]
    given = parse_parameters(command_type, handler.parameters, parameters)
    return handler.execute(command("a", command_type=command_type), given, around)


@pytest.fixture
def runs() -> list[str]:
    return []


@pytest.fixture
def service(runs: list[str], tmp_path: Path) -> CallbackService:
    starts = iter(f"s{number}" for number in range(1, 9))
    return CallbackService(
        lambda: runs.append(next(starts)), runs.clear, lambda: runs[-1] if runs else None, Wish(tmp_path / "stopped")
    )


def test_each_command_type_has_one_handler_with_its_parameters() -> None:
    assert {handler.command_type: handler.parameters for handler in HANDLERS} == {
        name: kind.parameters for name, kind in COMMAND_TYPES.items()
    }
    assert all((handler.probe is not None) == (handler.interruption is Interruption.PROBE) for handler in HANDLERS)


def test_two_handlers_for_one_type_are_refused() -> None:
    with pytest.raises(HandlerTableError, match="'restart-agent'; keep one"):
        handler_table([*HANDLERS, handler_table(HANDLERS)["restart-agent"]])


def test_a_restart_without_a_service_asks_for_a_new_process() -> None:
    assert execute("restart-agent", {}, context()) == AgentRestart()


def test_a_restart_of_the_service_proves_itself_by_its_incarnations(service: CallbackService) -> None:
    service.start(0.0)
    done = execute("restart-agent", {}, context(service))
    assert isinstance(done, Result)
    assert (done.code, done.data) == (
        None,
        RestartAgentData("callbacks", "s1", "s2"),
    )


def test_a_restart_that_changes_nothing_is_no_success(tmp_path: Path) -> None:
    stuck = CallbackService(lambda: None, lambda: None, lambda: "s1", Wish(tmp_path / "stopped"))
    done = execute("restart-agent", {}, context(stuck))
    assert isinstance(done, Result)
    assert (done.code, "no new incarnation" in done.message) == (ErrorCode.FAILED, True)


@pytest.mark.parametrize(("restarted_by", "by"), [("a", "command"), ("other", "outside"), (None, "outside")])
def test_the_next_process_is_the_proof_and_says_what_started_it(
    restarted_by: str | None, by: Literal["command", "outside"]
) -> None:
    stored = StoredCommand("c/1", command("a"), State.PROCESSING, NOW, NOW, "i1")
    probe = handler_table(HANDLERS)["restart-agent"].probe
    assert probe is not None
    done = probe(stored, context(restarted_by=restarted_by))
    assert isinstance(done, Result)
    assert (done.code, done.data) == (None, RestartAgentData("none", "i1", "i2", by))


def test_a_crash_while_the_service_was_restarted_is_not_called_a_success(service: CallbackService) -> None:
    stored = StoredCommand("c/1", command("a"), State.PROCESSING, NOW, NOW, "i1")
    probe = handler_table(HANDLERS)["restart-agent"].probe
    assert probe is not None
    done = probe(stored, context(service))
    assert isinstance(done, Result)
    assert done.code is ErrorCode.INTERRUPTED


def test_stop_and_start(service: CallbackService) -> None:
    service.start(0.0)
    for verb, running in (("stop-agent", False), ("start-agent", True)):
        done = execute(verb, {}, context(service))
        assert isinstance(done, Result)
        assert done.code is None
        assert service.state() == ServiceState("callbacks", running, "s2" if running else None)


@pytest.mark.parametrize(("verb", "incarnation"), [("stop-agent", "s1"), ("start-agent", None)])
def test_what_did_not_happen_is_no_success(tmp_path: Path, verb: str, incarnation: str | None) -> None:
    stuck = CallbackService(lambda: None, lambda: None, lambda: incarnation, Wish(tmp_path / "stopped"))
    done = execute(verb, {}, context(stuck))
    assert isinstance(done, Result)
    assert done.code is ErrorCode.FAILED


@pytest.mark.parametrize("verb", ["stop-agent", "start-agent"])
def test_without_a_service_there_is_nothing_to_stop_or_start(verb: str) -> None:
    with pytest.raises(ServiceError, match="manages no service"):
        execute(verb, {}, context())


def test_the_configuration_is_shown_with_secrets_masked_and_its_hash() -> None:
    done = execute("get-agent-configuration", {}, context())
    assert isinstance(done, Result)
    assert done.data.configuration["broker"] == "mqtt://me:********@127.0.0.1:1883"
    assert "hush" not in json.dumps(done.data.configuration)
    canonical = json.dumps(done.data.configuration, sort_keys=True, separators=(",", ":")).encode()
    assert done.data.sha256 == hashlib.sha256(canonical).hexdigest()


def test_each_value_says_where_it_comes_from() -> None:
    around = context(origins={"broker": "environment ACM_BROKER", "service.kind": "file /etc/agent.toml"})
    done = execute("get-agent-configuration", {"effective": True}, around)
    assert isinstance(done, Result)
    sources = done.data.sources
    assert sources["broker"] == "environment ACM_BROKER"
    assert sources["service.kind"] == "file /etc/agent.toml"
    assert sources["service.argv"] == "program"
    assert sources["kill_grace_s"] == sources["configuration.keep"] == "default"
    one = execute("get-agent-configuration", {"effective": True, "section": "service"}, around)
    assert isinstance(one, Result)
    assert one.data.sources.keys() == {"service.kind", "service.argv", "service.unit", "service.stop_grace_s"}


def test_one_section_of_the_configuration() -> None:
    done = execute("get-agent-configuration", {"section": "agent"}, context())
    assert isinstance(done, Result)
    assert done.data.configuration == {"agent": "web-01"}
    unknown = execute("get-agent-configuration", {"section": "nose"}, context())
    assert isinstance(unknown, Result)
    assert (unknown.code, "agent, broker" in unknown.message) == (ErrorCode.INVALID, True)
