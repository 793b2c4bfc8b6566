"""acm enrolment, and the deprecated commands that it replaces."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.cli.main import app
from tests.support.enrolled import Registrar


@pytest.fixture
def registrar(tmp_path: Path) -> Registrar:
    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db")
    registrar.enroll("web-01", tmp_path / "web-01", "mqtt://127.0.0.1")
    registrar.enroll("web-02", tmp_path / "web-02", "mqtt://127.0.0.1")
    return registrar


def acm(registrar: Registrar, *words: str) -> Any:
    environment = {"ACM_LEDGER": registrar.ledger, "ACM_CA": str(registrar.directory)}
    return CliRunner().invoke(app, words, env=environment, catch_exceptions=False)


def test_revoked_enrolment_is_listed_with_its_reason(registrar: Registrar) -> None:
    revoked = json.loads(acm(registrar, "enrolment", "revoke", "web-01", "--reason", "superseded", "--json").stdout)
    listed = json.loads(acm(registrar, "enrolment", "list", "--json").stdout)
    assert [(row["agent"], row["reason"]) for row in listed] == [("web-02", None), ("web-01", "superseded")]
    assert [row["id"] for row in revoked] == [listed[1]["id"]]
    assert (registrar.directory / "crl.pem").exists()


@pytest.mark.parametrize("words", [("list", "--agent", "web-01"), ("revoke", "web-01")])
def test_deprecated_ca_command_does_the_same_and_warns_on_stderr(registrar: Registrar, words: tuple[str, ...]) -> None:
    done = acm(registrar, "ca", *words, "--json")
    assert [row["agent"] for row in json.loads(done.stdout)] == ["web-01"]
    assert done.stderr == f"acm: `acm ca {words[0]}` is deprecated; use `acm enrolment {words[0]}`.\n"


def test_deprecated_ca_commands_are_not_in_the_help(registrar: Registrar) -> None:
    shown = acm(registrar, "ca", "--help").stdout
    assert "revoke" not in shown
