"""The commands of an operator, each on a ledger and over the API of the same ledger: one suite for both."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread

import pytest

from broker.cli.exit_codes import AcmExitCode
from broker.contract.messages import Status
from broker.contract.states import CommandState, ErrorCode, Outcome
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi
from tests.support.makers import result
from tests.support.places import TYPES, Place
from tests.support.recorded import record_feedback, record_status

ID = re.compile(r"^[0-9a-f-]{36}$", re.MULTILINE)


@pytest.fixture
def ledger(api: RunningApi) -> Ledger:
    return api.ledger


@contextmanager
def agents_answering(ledger: Ledger, outcome: Outcome = Outcome.SUCCESS) -> Iterator[None]:
    """Complete every command that is added meanwhile."""
    ended = Event()

    def answer() -> None:
        code = ErrorCode.FAILED if outcome is Outcome.ERROR else None
        while not ended.wait(0.02):
            ledger.claim_due(99)
            for row in ledger.commands(state=CommandState.SENT):
                said = replace(result(row.command.id), agent=row.agent, outcome=outcome, code=code, message="Done.")
                record_feedback(ledger, row.agent, [said])

    thread = Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_command_is_sent_listed_shown_and_cancelled(place: Place, ledger: Ledger) -> None:
    sent = place.acm("send", "web-01", "restart-agent", "delay_s=3", "--expires-in", "10m", "--timeout", "30s")
    assert (sent.exit_code, bool(ID.fullmatch(sent.stdout.strip()))) == (0, True)
    command_id = sent.stdout.strip()
    command = ledger.get(command_id).command
    assert (command.parameters, command.timeout_s) == ({"delay_s": 3}, 30.0)
    assert place.acm("commands", "--agent", "web-01", "--state", "queued", "-o", "name").stdout.split() == [command_id]
    assert place.acm("commands", "--outcome", "error", "--json").json == []
    (shown,) = place.acm("show", command_id[:-2].upper(), "--json").json["commands"]
    assert (shown["id"], shown["state"], shown["outcome"]) == (command_id, "queued", None)
    assert place.acm("cancel", command_id, "--json").json["state"] == "completed"
    again = place.acm("cancel", command_id)
    assert (again.exit_code, again.code) == (AcmExitCode.FAILURE, "already_completed")


def test_wait_ends_with_the_outcome_of_the_command(place: Place, ledger: Ledger) -> None:
    words = ("send", "web-01", "restart-agent", "--wait", "60", "--json")
    with agents_answering(ledger):
        done = place.acm(*words)
    (command,) = done.json["commands"]
    assert (done.exit_code, command["outcome"], command["result"]["message"]) == (0, "success", "Done.")
    assert (done.json["operation"], done.json["counts"]) == (None, {"success": 1})
    assert done.stderr == f"acm: Waiting for the command {command['id']}.\n"
    with agents_answering(ledger, Outcome.ERROR):
        failed = place.acm(*words)
    assert (failed.exit_code, failed.code, failed.json["commands"][0]["outcome"]) == (
        AcmExitCode.COMMAND_ERROR,
        "command_failed",
        "error",
    )
    late = place.acm("send", "web-01", "restart-agent", "--wait", "10ms")
    assert (late.exit_code, late.code) == (AcmExitCode.WAIT_TIMEOUT, "wait_timeout")


def test_operation_is_sent_followed_and_cancelled(place: Place, ledger: Ledger) -> None:
    with agents_answering(ledger):
        done = place.acm("send", "web-01,web-02", "restart-agent", "--wait", "60", "--json")
    assert (done.exit_code, done.json["counts"]) == (0, {"success": 2})
    assert [it["agent"] for it in done.json["commands"]] == ["web-01", "web-02"]
    operation = place.acm("send", "--group", "edge", "restart-agent").stdout.strip()
    assert place.acm("operation", "list", "-o", "name").stdout.split() == [operation, done.json["operation"]["id"]]
    late = place.acm("operation", "show", operation, "--wait", "10ms")
    assert (late.exit_code, late.code) == (AcmExitCode.WAIT_TIMEOUT, "wait_timeout")
    assert "2 commands" in place.acm("operation", "cancel", operation[:-1]).stdout
    shown = place.acm("show", operation)
    assert (shown.exit_code, "2 error" in shown.stderr, "web-02" in shown.stdout) == (0, True, True)
    second = place.acm("send", "--group", "edge", "restart-agent").stdout.strip()
    assert place.acm("operation", "cancel", second, "--abandon").stdout == "2 commands abandoned.\n"


def test_many_agents_are_confirmed_and_a_dry_run_sends_nothing(place: Place, ledger: Ledger) -> None:
    for words in (["web-*"], ["--all"]):
        asked = place.acm("send", *words, "restart-agent")
        assert (asked.exit_code, asked.code) == (AcmExitCode.USAGE, "confirmation_needed")
        assert "web-01, web-02" in asked.message
    plan = place.acm("send", "web-*", "restart-agent", "delay_s=3", "--dry-run", "--json").json
    assert (plan["agents"], plan["parameters"]) == (["web-01", "web-02"], {"delay_s": 3})
    assert ledger.commands() == []
    assert place.acm("send", "web-*", "restart-agent", "--yes").exit_code == 0
    assert len(ledger.commands()) == 2


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "hint"),
    [
        (["wb-01", "restart-agent"], AcmExitCode.UNKNOWN_AGENT, "unknown_agent", "Did you mean web-01?"),
        (["x-*", "restart-agent"], AcmExitCode.UNKNOWN_AGENT, "no_agent_matches", "acm agents"),
        (["--group", "none", "restart-agent"], AcmExitCode.UNKNOWN_AGENT, "no_agent_matches", "acm agents"),
        (["a b", "restart-agent"], AcmExitCode.USAGE, "invalid_name", "a b"),
        (["web-01", "restart-agnet"], AcmExitCode.USAGE, "unsupported_type", "Did you mean restart-agent?"),
        (["web-01", "restart-agent", "delays=1"], AcmExitCode.USAGE, "unknown_parameter", "Did you mean delay_s?"),
        (["web-01", "restart-agent", "delay_s=soon"], AcmExitCode.USAGE, "invalid_parameter", "acm types"),
        (["web-01", "brew", "password=x"], AcmExitCode.USAGE, "secret_on_command_line", "password=@FILE"),
    ],
)
def test_what_its_agents_would_refuse_is_not_sent(
    place: Place, ledger: Ledger, words: list[str], exit_code: AcmExitCode, code: str, hint: str
) -> None:
    refused = place.acm("send", *words)
    assert (refused.exit_code, refused.code) == (exit_code, code)
    assert hint in refused.message
    assert ledger.commands() == []


def test_unknown_agent_and_type_are_accepted_if_asked_for(place: Place) -> None:
    assert place.acm("send", "later-01", "restart-agent", "--allow-unknown").exit_code == 0
    assert place.acm("send", "web-01", "restart-agnet", "--force").stderr == ""
    warned = place.acm("send", "later-01", "restart-agnet")
    assert (warned.exit_code, "Did you mean restart-agent?" in warned.stderr) == (0, True)


def test_ended_command_and_failed_ones_of_an_operation_are_sent_again(place: Place, ledger: Ledger) -> None:
    open_id = place.acm("send", "web-01", "restart-agent", "delay_s=3", "--expires-in", "10m").stdout.strip()
    assert place.acm("retry", open_id).code == "still_open"
    place.acm("cancel", open_id, "--abandon")
    again = ledger.get(place.acm("retry", open_id).stdout.strip()).command
    assert (again.parameters, again.expires_at is None) == ({"delay_s": 3}, False)
    operation = place.acm("send", "web-01,web-02", "restart-agent").stdout.strip()
    assert place.acm("retry", operation).code == "nothing_failed"
    place.acm("operation", "cancel", operation, "--abandon")
    retried = place.acm("retry", operation, "--json").json
    assert (retried["operation"]["target"], retried["counts"]) == ("web-01,web-02", {"queued": 2})


def test_members_of_groups_are_changed(place: Place, ledger: Ledger) -> None:
    assert place.acm("group", "add", "core", "web-01").stdout == "Members of core: web-01.\n"
    unknown = place.acm("group", "add", "core", "later-01")
    assert (unknown.exit_code, unknown.code) == (AcmExitCode.UNKNOWN_AGENT, "unknown_agent")
    added = place.acm("group", "add", "core", "later-01", "--allow-unknown")
    assert added.stdout == "Members of core: later-01, web-01.\n"
    assert place.acm("group", "remove", "core", "later-01").stdout == "Members of core: web-01.\n"
    assert place.acm("group", "show", "core").stdout == "web-01\n"
    assert place.acm("group", "remove", "core", "web-01").stdout == "Group core has no members.\n"
    assert ledger.groups.members("core") == []


READERS = [
    ["agents"],
    ["agents", "--json"],
    ["agents", "-o", "wide", "--sort", "-agent"],
    ["agents", "show", "web-01"],
    ["agents", "show", "web-01", "--json"],
    ["agents", "show", "web-1"],
    ["commands", "--sort", "agent"],
    ["commands", "--sort", "agent", "--json"],
    ["commands", "--limit", "1"],
    ["commands", "--sort", "agent", "--columns", "agent,message", "--no-headers"],
    ["commands", "--sort", "agent", "--operation", "{operation}", "-o", "yaml"],
    ["commands", "--agent", "nosuch"],
    ["commands", "--operation", "nosuch"],
    ["commands", "--columns", "nosuch"],
    ["show", "{ended}"],
    ["show", "{open}"],
    ["show", "{open}", "--json"],
    ["show", "{operation}"],
    ["show", "0"],
    ["show", "ffff"],
    ["cancel", "{operation}"],
    ["explain", "{ended}"],
    ["explain", "{ended}", "--json"],
    ["explain", "ffff"],
    ["events"],
    ["events", "--type", "command_completed", "--limit", "1", "--json"],
    ["events", "--command", "{ended}"],
    ["operation", "list"],
    ["operation", "list", "--json"],
    ["operation", "show", "{operation}"],
    ["operation", "show", "{operation}", "--json"],
    ["operation", "show", "{ended}"],
    ["operation", "cancel", "{ended}"],
    ["group", "list"],
    ["group", "list", "--json"],
    ["group", "show", "edge", "--json"],
    ["group", "show", "nosuch"],
    ["group", "show", "no such"],
]


def test_output_and_errors_are_the_same_at_both_places(places: dict[str, Place], ledger: Ledger) -> None:
    on_ledger, over_api = places["ledger"], places["api"]
    with agents_answering(ledger):
        sent = on_ledger.acm("send", "web-01", "restart-agent", "--wait", "60", "--json").json
        operation = on_ledger.acm("send", "web-*", "restart-agent", "-y", "--wait", "60", "--json").json["operation"]
    record_status(ledger, Status("web-01", True, "1", "i", "b", "g", supported_types=TYPES, last_error="Full."))
    ended = sent["commands"][0]["id"]
    ids = {"ended": ended, "operation": operation["id"], "open": on_ledger.acm("send", "web-01", "brew").stdout.strip()}
    for words in READERS:
        given = [word.format(**ids) for word in words]
        assert over_api.acm(*given) == on_ledger.acm(*given), words


def test_open_command_is_explained(place: Place) -> None:
    command_id = place.acm("send", "web-01", "restart-agent").stdout.strip()
    waiting = place.acm("explain", command_id, "--json").json["waiting"]
    assert (waiting["hop"], waiting["reason"]) == ("claimed", "server_down")
    assert "(server_down)" in place.acm("explain", command_id).stdout
