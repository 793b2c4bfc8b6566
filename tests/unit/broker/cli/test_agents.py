"""acm agents: what is known of each agent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.app.factories import open_database
from broker.cli.main import app
from broker.contract.messages import Origin, Status
from broker.errors import BrokerError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from tests.support.enrolled import Registrar, now
from tests.support.errors import raises_code
from tests.support.recorded import record_status


@pytest.fixture
def registrar(tmp_path: Path) -> Registrar:
    return Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db")


@pytest.fixture
def ledger(registrar: Registrar, tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with an enrolled agent in a group, one that accepts unsigned commands, and one that has said nothing."""
    registrar.enroll("web-01", tmp_path / "web-01", "mqtt://127.0.0.1")
    ledger = Ledger(open_database(registrar.ledger), now=now)
    service = {"kind": "systemd", "running": True}
    record_status(
        ledger,
        Status("web-01", True, "1.2", "i", "b", "g", supported_types=("brew",), service=service, groups=("edge",)),
        Status("web-02", True, "1.2", "i", "b", "g", accepts_unsigned=True, last_error="The disk is full."),
    )
    ledger.add_command("web-03", CommandRequest("brew", {}, Origin("me", "test")))
    yield ledger
    ledger.database.close()


def acm(registrar: Registrar, *words: str) -> Any:
    return CliRunner().invoke(app, words, env={"ACM_LEDGER": registrar.ledger}, catch_exceptions=False)


def columns_of(registrar: Registrar, *names: str) -> list[list[str]]:
    shown = acm(registrar, "agents", "--columns", ",".join(names), "--no-headers").stdout
    return [line.split(maxsplit=len(names) - 1) for line in shown.splitlines()]


@pytest.mark.usefixtures("ledger")
def test_list_has_groups_service_signatures_and_the_end_of_the_certificate(registrar: Registrar) -> None:
    assert columns_of(registrar, "agent", "groups", "service", "signed", "open") == [
        ["web-01", "edge", "systemd:running", "yes", "0"],
        ["web-02", "-", "-", "no", "0"],
        ["web-03", "-", "-", "-", "1"],
    ]
    (enrolled, never, _) = columns_of(registrar, "agent", "certificate_until", "enrolment")
    assert enrolled[1].endswith("Z")
    assert (enrolled[2], never[1:]) == ("valid", ["-", "-"])


@pytest.mark.usefixtures("ledger")
def test_agent_that_was_online_is_unknown_while_no_server_runs(registrar: Registrar) -> None:
    shown = acm(registrar, "agents", "--json")
    assert [row["state"] for row in json.loads(shown.stdout)] == ["unknown"] * 3
    assert "No server runs" in shown.stderr


@pytest.mark.usefixtures("ledger")
def test_one_agent_is_shown_with_everything_that_is_known_of_it(registrar: Registrar) -> None:
    facts = acm(registrar, "agents", "show", "web-01").stdout.splitlines()
    assert dict(line.split(maxsplit=1) for line in facts)["types"] == "brew"
    shown = json.loads(acm(registrar, "agents", "show", "web-01", "--json").stdout)
    assert shown == json.loads(acm(registrar, "agents", "--json").stdout)[0]
    assert (shown["groups"], shown["enrolment"], shown["status"]["version"]) == (["edge"], "valid", "1.2")
    with raises_code(BrokerError, "unknown_agent"):
        acm(registrar, "agents", "show", "web-1")
