"""acm ca rollover, without a broker: what it shows, and when it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.cli import rollover
from broker.cli.main import app
from broker.cli.rollover import NoRollover, RolloverUnfinished
from tests.support.brokers import free_port
from tests.support.enrolled import Registrar
from tests.support.errors import raises_code


@pytest.fixture
def registrar(tmp_path: Path) -> Registrar:
    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db")
    for name in ("web-01", "web-02"):
        registrar.enroll(name, tmp_path / name, "mqtt://127.0.0.1")
    return registrar


def acm(registrar: Registrar, *words: str, **environment: str) -> Any:
    environment = {"ACM_LEDGER": registrar.ledger, "ACM_CA": str(registrar.directory), **environment}
    return CliRunner().invoke(app, ["ca", "rollover", *words], env=environment, catch_exceptions=False)


def test_begin_sends_both_authorities_to_every_agent_and_lists_who_has_not_moved(registrar: Registrar) -> None:
    begun = json.loads(acm(registrar, "begin", "--json").stdout)
    assert (begun["in_progress"], begun["moved"], begun["not_moved"]) == (True, [], ["web-01", "web-02"])
    assert begun["trusted"] == registrar.authority.trusted
    assert "Not moved: web-01, web-02." in acm(registrar, "status").stdout
    successor = registrar.authority.successor
    assert acm(registrar, "begin").stdout.startswith("There was a successor already")
    assert registrar.authority.successor == successor


def test_authorities_to_trust_are_printed_if_no_file_of_the_broker_has_them(registrar: Registrar) -> None:
    shown = acm(registrar, "begin").stderr
    assert registrar.authority.trusted in shown


def test_finish_refuses_while_agents_have_not_moved(registrar: Registrar) -> None:
    with raises_code(NoRollover, "no_rollover"):
        acm(registrar, "finish")
    acm(registrar, "begin")
    with raises_code(RolloverUnfinished, "agents_not_moved"):
        acm(registrar, "finish")
    successor = registrar.authority.successor
    acm(registrar, "finish", "--leave-agents-behind")
    assert registrar.authority.certificate == successor
    assert "No rollover is in progress" in acm(registrar, "status").stdout


def test_finish_refuses_until_the_broker_uses_the_successor(
    registrar: Registrar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollover, "_BROKER_TIMEOUT_S", 0.0)
    acm(registrar, "begin")
    broker = f"mqtts://127.0.0.1:{free_port()}"
    with raises_code(RolloverUnfinished, "broker_not_moved"):
        acm(registrar, "finish", "--leave-agents-behind", ACM_ENROLL_BROKER=broker)
    assert registrar.authority.successor is not None
