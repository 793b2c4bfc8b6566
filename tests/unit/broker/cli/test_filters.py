"""Finding commands with acm: ids by their beginnings, filters, and lists that are watched."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.cli.commands import COMMANDS
from broker.cli.moments import parse_moment
from broker.cli.watching import watch_list
from broker.console.formats import ListFormat, ListOptions
from broker.contract.messages import Origin
from broker.errors import BrokerError, InvalidArgument
from broker.fleet.models import CommandFilter
from broker.fleet.on_ledger import LedgerFleet
from broker.ledger.changes import Changes
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from tests.support.cli import acm
from tests.support.errors import raises_code
from tests.support.makers import result
from tests.support.recorded import record_feedback

REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


def test_command_and_operation_are_found_by_the_beginnings_of_their_ids(url: str, ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01", "web-02"], "all", REQUEST).id
    alone = ledger.add_command("web-01", REQUEST).id
    for given in (alone, alone[:-1], alone[:-1].upper()):
        assert json.loads(acm(url, "show", given, "--json").stdout)["commands"][0]["id"] == alone
    assert json.loads(acm(url, "operation", "show", operation[:-1], "--json").stdout)["operation"]["id"] == operation
    listed = acm(url, "commands", "--operation", operation[:-1], "-o", "name").stdout
    assert len(listed.split()) == 2
    assert json.loads(acm(url, "cancel", alone[:-1], "--json").stdout)["state"] == "completed"
    assert "2 commands" in acm(url, "operation", "cancel", operation[:-1]).stdout


def test_show_shows_an_operation_too(url: str, ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01"], "web-*", REQUEST).id
    shown = acm(url, "show", operation)
    assert "web-01" in shown.stdout
    assert "1 queued" in shown.stderr
    assert json.loads(acm(url, "show", operation, "--json").stdout)["counts"] == {"queued": 1}


def test_id_that_is_not_unique_or_of_another_kind_is_refused(url: str, ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01", "web-02"], "all", REQUEST).id
    first = ledger.commands()[0].command.id
    with raises_code(InvalidArgument, "ambiguous_id"):
        acm(url, "show", first[0])
    with raises_code(BrokerError, "is_an_operation"):
        acm(url, "cancel", operation)
    with raises_code(BrokerError, "is_a_command"):
        acm(url, "operation", "cancel", first)
    with raises_code(BrokerError, "unknown_command"):
        acm(url, "show", "ffff")


def test_filters_can_be_combined(url: str, ledger: Ledger) -> None:
    done, failed, other = (
        ledger.add_command("web-01", CommandRequest(command_type, {}, Origin("me", "test"))).id
        for command_type in ("restart-agent", "restart-agent", "set-group")
    )
    ledger.claim_due(9)
    record_feedback(ledger, "web-01", [result(done)])
    ledger.abandon(failed)

    def found(*words: str) -> list[str]:
        return acm(url, "commands", "-o", "name", *words).stdout.split()

    assert found("--type", "restart-agent") == [failed, done]
    assert found("--type", "restart-agent", "--outcome", "error") == [failed]
    assert found("--outcome", "success") == [done]
    assert found("--agent", "web-01", "--type", "set-group", "--since", "1h") == [other]
    assert found("--until", "1h") == []
    assert found("--since", "2020-01-01", "--until", "2020-01-02") == []


def test_moment_is_a_time_or_how_long_ago() -> None:
    assert parse_moment("2026-11-29") == datetime(2026, 11, 29, tzinfo=UTC)
    assert parse_moment("2026-11-29T08:05") == datetime(2026, 11, 29, 8, 5, tzinfo=UTC)
    assert parse_moment("2026-11-29T08:05:00+02:00") == datetime(2026, 11, 29, 6, 5, tzinfo=UTC)
    before, two_hours = datetime.now(UTC), timedelta(hours=2)
    assert before - two_hours <= parse_moment("2h") <= datetime.now(UTC) - two_hours
    for nonsense in ("yesterday", "", "2026-13-01", "0001-01-01T00:00+14:00"):
        with raises_code(InvalidArgument, "not_a_time"):
            parse_moment(nonsense)


class Told(Changes):
    """Changes that call a function each time they are waited for, and then end the watch as Ctrl-C does."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)

    def wait(self, timeout_s: float) -> bool:
        if not self._steps:
            raise KeyboardInterrupt
        self._steps.pop(0)()
        return True


@pytest.mark.parametrize("form", [ListFormat.PLAIN, ListFormat.JSON, ListFormat.YAML, ListFormat.NAME])
def test_watched_list_prints_each_row_that_is_new_or_has_changed(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], form: ListFormat
) -> None:
    fleet, first = LedgerFleet(ledger, REQUEST.origin), ledger.add_command("web-01", REQUEST).id
    later: list[str] = []
    steps = (
        lambda: None,
        lambda: later.append(ledger.add_command("web-02", REQUEST).id),
        lambda: record_feedback(ledger, "web-01", [replace(result(first), message="Done.")]),
    )
    ledger.claim_due(9)
    with pytest.raises(KeyboardInterrupt):
        watch_list(
            COMMANDS, lambda: fleet.newest_commands(CommandFilter()), ListOptions(form, watch=True), Told(*steps)
        )
    printed = capsys.readouterr().out
    if form is ListFormat.YAML:
        assert printed.count("---\n") == 3
        return
    lines = printed.splitlines()
    if form is ListFormat.PLAIN:
        assert lines.pop(0).startswith("id  ")
    names = [json.loads(line)["id"] if form is ListFormat.JSON else line.split()[0] for line in lines]
    assert names[:2] == [first, *later]
    assert names[2:] == [first]
