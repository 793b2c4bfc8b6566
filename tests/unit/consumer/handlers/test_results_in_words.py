"""What handlers tell a script about the service, and what they say about records that were changed meanwhile."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.contract.commands.execute_active_response import ExecuteActiveResponse
from broker.contract.commands.get_agent_configuration import GetAgentConfiguration
from broker.contract.commands.get_audit_journal import GetAuditJournal
from broker.contract.messages import Output
from broker.contract.states import ErrorCode, State
from consumer.active_response.records import ResponseRecord
from consumer.active_response.responses import Attempt
from consumer.handler import Context, Result
from consumer.handlers import execute_active_response, get_agent_configuration, get_audit_journal
from consumer.ports import ServiceState, StoredCommand
from consumer.services import NoService
from consumer.settings import CentralizedConfig, ServiceConfig
from consumer.store.opening import open_store
from consumer.system.programs import Ended
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, command, config

RECORD = ResponseRecord("block", "block.sh", ("192.0.2.1",), "a", "active", NOW, "boot")


class Responses:
    """Runs no script; keeps the environment of the last one."""

    def __init__(self, entry: ResponseRecord | None = None) -> None:
        self.entry = entry
        self.environment: dict[str, str] = {}

    def run(self, request: object, bounds: object, environment: dict[str, str]) -> Attempt:
        self.environment = environment
        return Attempt(Ended(0, Output(), overdue=False))

    def after_crash(self, command_id: str) -> ResponseRecord | None:
        return self.entry


class Running(NoService):
    """A service whose process is known."""

    def state(self) -> ServiceState:
        return ServiceState("child", running=True, detail={"pid": 4711})


@pytest.mark.parametrize(
    ("service", "environment"),
    [
        (ServiceConfig("systemd", unit="a.service"), {"ACM_SERVICE_KIND": "systemd", "ACM_SERVICE_UNIT": "a.service"}),
        (ServiceConfig("child", ("x",)), {"ACM_SERVICE_KIND": "child", "ACM_SERVICE_PID": "4711"}),
        (ServiceConfig(), {"ACM_SERVICE_KIND": "none"}),
    ],
)
def test_script_learns_which_service_it_may_restart(service: ServiceConfig, environment: dict[str, str]) -> None:
    responses: Any = Responses()
    handler = execute_active_response.handler(responses, service)
    done = handler.execute(command("a"), ExecuteActiveResponse("block"), Context(TurnedClock(), Running(), Path("/x")))
    assert isinstance(done, Result)
    assert (done.code, responses.environment) == (None, environment)


@pytest.mark.parametrize(
    ("entry", "words"),
    [(RECORD, "nothing will be reversed"), (replace(RECORD, reversed_at=NOW), "its possible effect was reversed at")],
)
def test_interrupted_script_is_uncertain_and_the_result_says_what_is_reversed(
    entry: ResponseRecord, words: str
) -> None:
    responses: Any = Responses(entry)
    probe = execute_active_response.handler(responses, ServiceConfig()).probe
    assert probe is not None
    stored = StoredCommand("c/1", command("a"), State.PROCESSING, NOW, NOW, "i1")
    done = probe(stored, Context(TurnedClock(), NoService(), Path("/x")))
    assert isinstance(done, Result)
    assert (done.code, words in done.message) == (ErrorCode.INTERRUPTED, True)


def test_journal_after_its_last_number_is_empty(tmp_path: Path) -> None:
    open_store(tmp_path, now=lambda: NOW).close()
    asked = GetAuditJournal(first=1000)
    done = get_audit_journal.HANDLER.execute(command("a"), asked, Context(TurnedClock(), NoService(), tmp_path))
    assert isinstance(done, Result)
    assert (done.code, done.data and done.data.pages) == (None, ())


def test_configuration_whose_link_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "current").write_bytes(b"")
    settings = config(configuration=CentralizedConfig(directory=str(tmp_path)))
    handler = get_agent_configuration.handler(settings, {})
    context = Context(TurnedClock(), NoService(), tmp_path)
    shown = handler.execute(command("a"), GetAgentConfiguration(section="centralized"), context)
    assert isinstance(shown, Result)
    assert shown.code == ErrorCode.FAILED
