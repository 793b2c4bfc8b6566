"""What acm explain and acm show have about a command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.main import app
from broker.contract.messages import Feedback, Origin, RunningProgress, Status
from broker.contract.secrets import MASK
from broker.contract.states import FeedbackKind
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback, record_status

Ended = tuple[str, Callable[..., str]]


@pytest.fixture
def ended(tmp_path: Path, clock: TurnedClock) -> Ended:
    """A command with a secret that has ended, and a function that calls acm."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_database(url) as database:
        ledger = Ledger(database, now=clock.now)
        parameters = {"name": "eth0", "password": "tiger"}
        request = CommandRequest("set-wifi", parameters, Origin("ann@ops", "acm"), timeout_s=90.0)
        command = ledger.add_command("web-01", request)
        clock.turn(1.0)
        ledger.claim_due(9)
        clock.turn(2.0)
        record_feedback(ledger, "web-01", [replace(result(command.id), kind=FeedbackKind.ACCEPTED)])
        began = clock.now()
        clock.turn(4.0)
        record_feedback(ledger, "web-01", [replace(result(command.id), started_at=began, finished_at=clock.now())])
        clock.turn(8.0)
        record_status(ledger, Status("web-01", True, "1", "i", "b", "g"))

    def acm(*words: str) -> str:
        done = CliRunner().invoke(app, list(words), env={"ACM_LEDGER": url, "COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    return command.id, acm


def test_explanation_has_each_hop_and_where_the_time_went(ended: Ended) -> None:
    command_id, acm = ended
    document: Any = json.loads(acm("explain", command_id, "--json"))
    assert [(it["name"], it["took_s"]) for it in document["hops"] if it["at"]] == [
        ("created", None),
        ("claimed", 1.0),
        ("published", None),
        ("stored", 2.0),
        ("started", None),
        ("finished", 4.0),
        ("reported", 4.0),
        ("acked", None),
        ("deleted", None),
    ]
    assert (document["total_s"], document["outcome"]) == (7.0, "success")
    lines = acm("explain", command_id).splitlines()
    names = [it["name"] for it in document["hops"]]
    assert [line.split()[0] for line in lines if line.split()[0] in names] == names
    assert "7.000 s in total: 1.000 s until it was sent" in lines[-1]


def test_show_has_who_what_and_when_with_secrets_masked(ended: Ended) -> None:
    command_id, acm = ended
    shown = acm("show", command_id)
    rows = [line.partition("  ") for line in shown.splitlines()[2:]]
    facts = {name: value.strip() for name, _, value in rows if value}
    assert list(facts) == [
        *("from", "parameters", "number", "timeout", "created", "sent", "stored", "started", "finished", "reported"),
        *("acked", "duration"),
    ]
    assert facts["from"] == "ann@ops (acm)"
    assert json.loads(facts["parameters"]) == {"name": "eth0", "password": MASK}
    assert facts["timeout"] == "90.0 s"
    assert facts["duration"] == "7.000 s, from created to reported"
    assert "tiger" not in shown
    (document,) = json.loads(acm("show", command_id, "--json"))["commands"]
    assert [document[name] is None for name in ("sent_at", "stored_at", "running_at")] == [False, False, True]


def test_running_command_has_the_progress_that_its_agent_reports(tmp_path: Path, clock: TurnedClock) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_database(url) as database:
        ledger = Ledger(database, now=clock.now)
        command = ledger.add_command("web-01", CommandRequest("x", {}, Origin("me", "test")))
        ledger.claim_due(9)
        begun = Feedback(FeedbackKind.PROGRESS, "web-01", "g", "i", "processing", "It runs.", command_id=command.id)
        record_feedback(ledger, "web-01", [begun])

        def shown(*words: str) -> Any:
            return json.loads(CliRunner().invoke(app, [*words, command.id, "--json"], env={"ACM_LEDGER": url}).output)

        (sequence,) = (row.command.sequence for row in ledger.commands())
        assert sequence is not None
        before = Status(
            *("web-01", True, "1", "i", "b", "g"),
            epoch=sequence.epoch,
            last_sequence=sequence.number,
            running_progress=RunningProgress("download", 40),
        )
        for running, progress in ((command.id, {"phase": "download", "percent": 40}), ("another", None)):
            record_status(ledger, replace(before, running_command=running))
            assert (shown("show")["running_progress"], shown("explain")["progress"]) == (progress, progress)


def test_open_command_has_the_reason_and_what_to_do(tmp_path: Path, clock: TurnedClock) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_database(url) as database:
        command = Ledger(database, now=clock.now).add_command("web-01", CommandRequest("x", {}, Origin("me", "test")))
    call = ["explain", command.id]
    shown = CliRunner().invoke(app, call, env={"ACM_LEDGER": url, "COLUMNS": "200"}).output.splitlines()[-3:]
    waiting = json.loads(CliRunner().invoke(app, [*call, "--json"], env={"ACM_LEDGER": url}).output)["waiting"]
    assert (waiting["hop"], waiting["reason"], waiting["since"]) == ("claimed", "server_down", "2026-01-01T00:16:40Z")
    assert "(server_down)" in shown[0]
    assert [line.strip() for line in shown[1:]] == [waiting["why"], f"What to do: {waiting['advice']}"]
