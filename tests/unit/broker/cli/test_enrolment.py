"""acm enrolment, and the deprecated commands that it replaces."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.testing import CliRunner

from broker.cli.enrolment import CrlNotWritten
from broker.cli.main import app
from tests.support.enrolled import Registrar
from tests.support.errors import raises_code


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


def test_revocation_whose_list_cannot_be_written_is_an_error_and_is_kept(registrar: Registrar) -> None:
    with raises_code(CrlNotWritten, "crl_not_written") as caught:
        acm(registrar, "enrolment", "revoke", "web-01", "--crl", str(registrar.directory / "ca.crt" / "crl.pem"))
    assert "acm ca crl" in str(caught.value)
    listed = json.loads(acm(registrar, "enrolment", "list", "--agent", "web-01", "--json").stdout)
    assert [row["reason"] is None for row in listed] == [False]


def test_revocation_list_is_written_on_request_with_its_end_shown(registrar: Registrar, tmp_path: Path) -> None:
    path = tmp_path / "list.pem"
    shown = json.loads(acm(registrar, "ca", "crl", "--crl", str(path), "--json").stdout)
    crl = x509.load_pem_x509_crl(path.read_bytes())
    until = datetime.fromisoformat(shown["next_update"]).replace(microsecond=0)
    assert (shown["crl"], until) == (str(path), crl.next_update_utc)


def test_revoked_token_is_listed_as_revoked(registrar: Registrar) -> None:
    acm(registrar, "token", "create", "web-03")
    (token,) = (row for row in json.loads(acm(registrar, "token", "list", "--json").stdout) if row["agent"] == "web-03")
    assert acm(registrar, "token", "revoke", token["id"]).output == "The token is revoked.\n"
    rows = json.loads(acm(registrar, "token", "list", "--json").stdout)
    assert [row["state"] for row in rows if row["id"] == token["id"]] == ["revoked"]
