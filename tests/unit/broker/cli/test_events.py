"""acm events: the list of what has happened, and what happens meanwhile."""

import json
import subprocess
import sys

from broker.contract.messages import Origin, Status
from broker.errors import BrokerError, InvalidArgument
from broker.ledger.enqueue import CommandRequest
from broker.ledger.event_log import EventsPruned
from broker.ledger.ledger import Ledger
from tests.support.cli import acm
from tests.support.errors import raises_code
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


def test_events_are_listed_oldest_first(url: str, ledger: Ledger) -> None:
    record_status(ledger, Status("web-01", True, "1", "i", "b", "g"))
    command = ledger.add_command("web-01", REQUEST)
    record_feedback(ledger, "web-01", [result(command.id)])
    listed = json.loads(acm(url, "events", "--json").stdout)
    assert [it["type"] for it in listed] == ["agent_first_seen", "agent_online", "command_created", "command_completed"]
    assert (listed[-1]["command_id"], listed[-1]["outcome"]) == (command.id, "success")
    (line,) = acm(url, "events", "--type", "command_completed", "--command", command.id[:-1]).stdout.splitlines()[1:]
    assert line.split()[1:] == ["command_completed", "web-01", command.id, "restart-agent", "success", "-"]
    after = str(listed[1]["id"])
    assert len(acm(url, "events", "--after", after, "-o", "name").stdout.split()) == 2
    assert acm(url, "events", "--since", "2h", "--json").stdout == acm(url, "events", "--json").stdout


def test_newest_events_are_shown_if_there_are_more(url: str, ledger: Ledger) -> None:
    operation = ledger.add_operation(["web-01", "web-02", "web-03"], "all", REQUEST).id
    shown = acm(url, "events", "--limit", "2", "--operation", operation[:-1])
    assert [line.split()[2] for line in shown.stdout.splitlines()[1:]] == ["web-02", "web-03"]
    assert "2 events shown; there are more" in shown.stderr


def test_what_cannot_be_shown_is_an_error(url: str, ledger: Ledger) -> None:
    with raises_code(BrokerError, "unknown_agent"):
        acm(url, "events", "--agent", "nosuch")
    with raises_code(EventsPruned, "events_pruned"):
        acm(url, "events", "--after", "1")
    with raises_code(InvalidArgument, "conflicting_options"):
        acm(url, "events", "--follow", "--sort", "time")
    with raises_code(InvalidArgument, "ambiguous_start"):
        acm(url, "events", "--after", "0", "--since", "1h")


def test_followed_events_are_printed_as_they_happen(url: str, ledger: Ledger) -> None:
    ledger.add_command("web-01", REQUEST)
    words = [sys.executable, "-m", "broker", "events", "--follow", "--after", "0", "-o", "json", "--ledger", url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            first = json.loads(process.stdout.readline())
            ledger.add_command("web-02", REQUEST)
            second = json.loads(process.stdout.readline())
        finally:
            process.terminate()
    assert (first["agent"], second["agent"]) == ("web-01", "web-02")
    assert second["id"] == first["id"] + 1
