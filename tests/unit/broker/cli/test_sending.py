"""acm send and retry: what is asked, refused and shown before a command is sent."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.cli.documents import document_of
from broker.contract.messages import Origin, Status
from broker.contract.states import ErrorCode, Outcome
from broker.errors import BrokerError
from broker.fleet.views import view_of_command
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from tests.support.cli import acm
from tests.support.errors import raises_code
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status
from tests.support.traced import CALLER, CALLER_TRACE

ROOT = Path(__file__).resolve().parents[4]
AGENTS = ("web-01", "web-02")


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """A ledger with two agents that support two types, and one that has sent no status."""
    opened = Ledger(open_database(url), now=lambda: datetime.now(UTC))
    for agent in AGENTS:
        record_status(opened, Status(agent, True, "0", "i", "b", "g", supported_types=("restart-agent", "brew")))
    opened.groups.add("edge", AGENTS)
    opened.add_command("new-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    yield opened
    opened.database.close()


def sent(ledger: Ledger) -> list[tuple[str, str]]:
    rows = [row for row in ledger.commands() if row.agent in AGENTS]
    return sorted((row.agent, row.command.type) for row in rows)


@pytest.mark.parametrize("words", [["web-*"], ["--all"], ["web-01,web-*"]])
def test_pattern_and_all_need_yes_without_a_terminal(url: str, ledger: Ledger, words: list[str]) -> None:
    with raises_code(BrokerError, "confirmation_needed") as refused:
        acm(url, "send", *words, "restart-agent")
    assert "web-01, web-02" in str(refused.value)
    assert sent(ledger) == []
    assert acm(url, "send", *words, "restart-agent", "--yes").exit_code == 0
    assert [agent for agent, _ in sent(ledger)] == [*AGENTS]


@pytest.mark.parametrize("words", [["web-01"], ["web-01,web-02"], ["--group", "edge"]])
def test_named_agents_and_groups_need_no_confirmation(url: str, ledger: Ledger, words: list[str]) -> None:
    assert acm(url, "send", *words, "restart-agent").exit_code == 0
    assert sent(ledger) != []


@pytest.mark.parametrize(("answer", "code", "count"), [(b"n\n", 1, 0), (b"y\n", 0, 2)])
def test_terminal_is_asked(url: str, ledger: Ledger, answer: bytes, code: int, count: int) -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "broker", "send", "web-*", "restart-agent", "--ledger", url]
    with subprocess.Popen(argv, cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as asking:
        os.close(theirs)
        asked = b""
        while b"?" not in asked:
            asked += os.read(ours, 4096)
        os.write(ours, answer)
        assert asking.wait(60) == code
    os.close(ours)
    assert b"restart-agent to 2 agents: web-01, web-02" in asked
    assert len(sent(ledger)) == count


def test_type_that_an_agent_does_not_support_is_refused_before_it_is_sent(url: str, ledger: Ledger) -> None:
    with raises_code(BrokerError, "unsupported_type") as refused:
        acm(url, "send", "web-01", "restart-agnet")
    assert "Did you mean restart-agent?" in str(refused.value)
    with raises_code(BrokerError, "unsupported_type"):
        acm(url, "send", "--group", "edge", "set-group", "groups=[]")
    assert sent(ledger) == []
    assert acm(url, "send", "web-01", "restart-agnet", "--force").exit_code == 0
    assert acm(url, "send", "web-01", "brew").stderr == "", "the agent supports it, though acm does not know it"


def test_unknown_type_for_an_agent_without_a_status_is_sent_with_a_warning(url: str, ledger: Ledger) -> None:
    done = acm(url, "send", "new-01", "restart-agnet")
    assert (done.exit_code, "Did you mean restart-agent?" in done.stderr) == (0, True)


def test_similar_agent_and_parameter_are_named(url: str, ledger: Ledger) -> None:
    with raises_code(BrokerError, "unknown_agent") as agent:
        acm(url, "send", "wb-01", "restart-agent")
    assert "Did you mean web-01?" in str(agent.value)
    with raises_code(BrokerError, "unknown_parameter") as parameter:
        acm(url, "send", "web-01", "restart-agent", "delays=3")
    assert "Did you mean delay_s?" in str(parameter.value)
    with raises_code(BrokerError, "invalid_parameter") as value:
        acm(url, "send", "web-01", "restart-agent", "delay_s=soon")
    assert "`acm types restart-agent`" in str(value.value)


@pytest.mark.parametrize("text", ["42", "null", "true", "[1]", '"x"', "1e400"])
def test_text_stays_text(url: str, ledger: Ledger, text: str) -> None:
    words = ("apply-centralized-configuration", f"content={text}", "--json")
    shown = json.loads(acm(url, "send", "new-01", *words).stdout)
    assert shown["commands"][0]["command"]["parameters"] == {"content": text}
    shown = json.loads(acm(url, "send", "new-01", "restart-agent", "delay_s=2", "--json").stdout)
    assert shown["commands"][0]["command"]["parameters"] == {"delay_s": 2}


def test_what_was_sent_has_one_shape_for_one_and_for_many(url: str, ledger: Ledger) -> None:
    one, many = (
        json.loads(acm(url, "send", agents, "restart-agent", "--json").stdout) for agents in ("web-01", "web-01,web-02")
    )
    assert (one["operation"], one["counts"], many["counts"]) == (None, {"queued": 1}, {"queued": 2})
    assert many["operation"]["id"] == many["commands"][0]["operation_id"]
    assert [it.keys() for it in (one, one["commands"][0])] == [it.keys() for it in (many, many["commands"][0])]
    shown = [
        json.loads(acm(url, "show", it, "--json").stdout) for it in (one["commands"][0]["id"], many["operation"]["id"])
    ]
    assert shown == [{**it, "agent_last_error": None, "running_progress": None} for it in (one, many)]


def test_dry_run_checks_everything_and_writes_nothing(url: str, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    words = ("apply-centralized-configuration", "--file", f"artifact={tmp_path}/file", "--dry-run", "--json")
    plan = json.loads(acm(url, "send", "new-01", *words).stdout)
    assert (plan["agents"], plan["parameters"]["artifact"]["size"]) == (["new-01"], 1)
    assert acm(url, "send", "web-*", "restart-agent", "--dry-run").stdout.splitlines()[1:3] == [*AGENTS]
    with raises_code(BrokerError, "unknown_parameter"):
        acm(url, "send", "web-01", "restart-agent", "x=1", "--dry-run")
    with raises_code(BrokerError, "unsupported_type"):
        acm(url, "send", "web-01", "make-coffee", "--dry-run")
    assert (sent(ledger), list(ledger.blobs.rows())) == ([], [])


def test_dry_run_creates_no_ledger(tmp_path: Path) -> None:
    with raises_code(BrokerError, "ledger_not_found"):
        acm(f"sqlite:///{tmp_path}/none.db", "send", "web-01", "restart-agent", "--allow-unknown", "--dry-run")
    assert list(tmp_path.iterdir()) == []


def end(ledger: Ledger, command_id: str, agent: str, outcome: Outcome = Outcome.ERROR) -> None:
    code = ErrorCode.FAILED if outcome is Outcome.ERROR else None
    ledger.claim_due(9)
    record_feedback(ledger, agent, [replace(result(command_id), agent=agent, outcome=outcome, code=code)])


def test_ended_command_is_sent_again_with_its_parameters(url: str, ledger: Ledger) -> None:
    request = CommandRequest("restart-agent", {"delay_s": 3}, Origin("other", "test"), 600.0, 30.0)
    first = ledger.add_command("web-01", request)
    with raises_code(BrokerError, "still_open"):
        acm(url, "retry", first.id)
    end(ledger, first.id, "web-01")
    again = ledger.get(acm(url, "retry", first.id).stdout.strip()).command
    assert (again.type, again.parameters, again.timeout_s) == (first.type, first.parameters, 30.0)
    assert again.expires_at is not None
    assert (again.expires_at - again.created_at).total_seconds() == 600.0
    assert (again.id == first.id, again.origin.module) == (False, "acm")


def test_failed_commands_of_an_operation_are_sent_again(url: str, ledger: Ledger) -> None:
    operation = ledger.add_operation(AGENTS, "web-*", CommandRequest("restart-agent", {}, Origin("me", "test")))
    for row in ledger.commands(operation_id=operation.id):
        end(ledger, row.command.id, row.agent, Outcome.SUCCESS if row.agent == "web-01" else Outcome.ERROR)
    again = acm(url, "retry", operation.id).stdout.strip()
    assert [row.agent for row in ledger.commands(operation_id=again)] == ["web-02"]
    with raises_code(BrokerError, "nothing_failed"):
        acm(url, "retry", again)


def test_command_whose_secrets_are_gone_is_not_sent_again(url: str, ledger: Ledger) -> None:
    command = ledger.add_command("new-01", CommandRequest("brew", {"token": "hush"}, Origin("me", "test")))
    end(ledger, command.id, "new-01")
    with raises_code(BrokerError, "secret_is_gone"):
        acm(url, "retry", command.id)


@pytest.mark.parametrize(("given", "trace"), [(CALLER, CALLER_TRACE), ("altered", None)])
def test_command_is_part_of_the_trace_that_the_environment_names(
    url: str, ledger: Ledger, given: str, trace: str | None
) -> None:
    done = acm(url, "send", "web-01", "restart-agent", "--json", TRACEPARENT=given)
    (shown,) = json.loads(done.stdout)["commands"]
    assert shown["trace_id"] == trace
    assert document_of(view_of_command(ledger.get(shown["id"])))["trace_id"] == trace
    assert (CALLER_TRACE in acm(url, "show", shown["id"]).stdout) is (trace is not None)
