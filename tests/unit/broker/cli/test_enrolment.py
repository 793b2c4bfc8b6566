"""acm enrolment, and the deprecated commands that it replaces."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.testing import CliRunner

from broker.cli.main import app
from broker.enrolment.store import UnknownEnrolment
from broker.errors import InvalidArgument
from broker.pki.authority import CertificateAuthority
from broker.pki.revocation_file import CrlNotWritten
from consumer.cli.main import app as agent_app
from tests.support.enrolled import Registrar, now
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
    assert json.loads(acm(registrar, "token", "revoke", token["id"][:24], "--json").stdout)["state"] == "revoked"
    rows = json.loads(acm(registrar, "token", "list", "--json").stdout)
    assert [row["state"] for row in rows if row["id"] == token["id"]] == ["revoked"]


def test_access_token_is_revoked_by_the_beginning_of_its_id(registrar: Registrar) -> None:
    made = json.loads(acm(registrar, "api", "token", "create", "alice", "--role", "viewer", "--json").stdout)
    revoked = json.loads(acm(registrar, "api", "token", "revoke", made["id"][:13], "--json").stdout)
    assert (revoked["id"], revoked["revoked_at"] is None) == (made["id"], False)


def test_one_enrolment_is_revoked_by_the_beginning_of_its_id(registrar: Registrar) -> None:
    rows = json.loads(acm(registrar, "enrolment", "list", "--json").stdout)
    (mine,) = (row["id"] for row in rows if row["agent"] == "web-01")
    (revoked,) = json.loads(acm(registrar, "enrolment", "revoke", mine[:-2], "--json").stdout)
    assert (revoked["id"], revoked["state"]) == (mine, "revoked")


def test_name_of_an_agent_is_no_beginning_of_an_id(registrar: Registrar) -> None:
    (mine, _) = (row["id"] for row in json.loads(acm(registrar, "enrolment", "list", "--json").stdout))
    acm(registrar, "token", "create", mine[:8])
    acm(registrar, "enrolment", "revoke", mine[:8])
    rows = json.loads(acm(registrar, "enrolment", "list", "--json").stdout)
    assert {row["state"] for row in rows} == {"valid"}
    with raises_code(UnknownEnrolment, "unknown_enrolment"):
        acm(registrar, "enrolment", "revoke", mine[:7])


def test_revoked_agent_looks_so_everywhere(registrar: Registrar) -> None:
    acm(registrar, "enrolment", "revoke", "web-01")
    agents = {row["name"]: row["enrolment"] for row in json.loads(acm(registrar, "agents", "--json").stdout)}
    assert agents == {"web-01": "revoked", "web-02": "valid"}
    rows = json.loads(acm(registrar, "enrolment", "list", "--json").stdout)
    assert {row["agent"]: row["state"] for row in rows} == agents
    assert "was revoked at" in acm(registrar, "enrolment", "revoke", "web-01").stdout


def test_expired_enrolment_looks_so_everywhere(tmp_path: Path) -> None:
    registrar = Registrar(tmp_path / "ca", f"sqlite:///{tmp_path}/ledger.db", lambda: now() - timedelta(days=40))
    registrar.enroll("web-01", tmp_path / "web-01", "mqtt://127.0.0.1")
    (agent,) = json.loads(acm(registrar, "agents", "--json").stdout)
    (enrolment,) = json.loads(acm(registrar, "enrolment", "list", "--json").stdout)
    assert (agent["enrolment"], enrolment["state"]) == ("expired", "expired")
    shown = CliRunner().invoke(agent_app, ["enrolment", "--state", str(tmp_path / "web-01")])
    assert "has expired" in shown.stdout


def test_revocation_of_unused_tokens_alone_says_so(registrar: Registrar) -> None:
    acm(registrar, "token", "create", "web-03")
    assert "its unused tokens are revoked" in acm(registrar, "enrolment", "revoke", "web-03").stdout


def test_expiring_certificate_of_a_server_is_told_of(registrar: Registrar, tmp_path: Path) -> None:
    old = CertificateAuthority(registrar.directory, now=lambda: now() - timedelta(days=340))
    old.write_server_certificate(["localhost"], tmp_path, "enroll")
    config = tmp_path / "server.toml"
    config.write_text(f'enroll_certificate = "{tmp_path}/enroll.crt"\nenroll_key = "{tmp_path}/enroll.key"\n')
    for words in (("agents",), ("enrolment", "list")):
        assert f"{tmp_path}/enroll.crt expires at" in acm(registrar, *words, "--config", str(config)).stderr


def test_token_is_not_valid_for_years(registrar: Registrar) -> None:
    with raises_code(InvalidArgument, "ttl_too_long"):
        acm(registrar, "token", "create", "web-03", "--ttl", "1000d")


@pytest.mark.parametrize("host", ["mqtt.example.org", "[2001:db8::1]", "[fe80::1%25eth0]"])
def test_token_comes_with_the_address_of_the_enrolment_server(registrar: Registrar, tmp_path: Path, host: str) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f'enroll_broker = "mqtts://{host}"\nenroll_listen = "0.0.0.0:9443"\n')
    shown = acm(registrar, "token", "create", "web-03", "--config", str(config)).stderr
    assert f"--server https://{host}:9443 " in shown
