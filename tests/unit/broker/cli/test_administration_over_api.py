"""The commands of an administrator, each on a ledger and over the API of the same ledger: one suite for both."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.app.factories import open_database
from broker.cli.exit_codes import AcmExitCode
from broker.contract.commands.get_audit_journal import GetAuditJournalData
from broker.contract.messages import JournalMark, PendingReversal, Status
from broker.doctor.access import WRITES
from broker.fleet.models import Role
from broker.ledger.blob_errors import MAX_BLOB_BYTES
from broker.ledger.ledger import Ledger
from broker.system.checkup import Check
from broker.system.findings import NOT_CHECKED, ok
from tests.support.api import RunningApi, running_api
from tests.support.audited import answering_audits, honest_journal
from tests.support.enrolled import Registrar
from tests.support.journals import chained
from tests.support.makers import result
from tests.support.places import MachineClock, Place
from tests.support.recorded import record_feedback, record_status


@pytest.fixture
def ledger(api: RunningApi) -> Ledger:
    return api.ledger


@pytest.fixture
def registrar(api: RunningApi, url: str, tmp_path: Path) -> Registrar:
    """The authority of the ledger's installation, with an agent that is enrolled."""
    registrar = Registrar(tmp_path / "ca", url)
    registrar.enroll("web-01", tmp_path / "web-01", "mqtt://127.0.0.1")
    return registrar


def assert_same(places: dict[str, Place], *calls: str) -> None:
    """Assert that each of these calls, which change nothing, has the same output and exit code at both places."""
    for words in calls:
        assert places["api"].acm(*words.split()) == places["ledger"].acm(*words.split()), words


def test_agent_that_is_gone_is_forgotten(place: Place, ledger: Ledger) -> None:
    online = place.acm("agents", "forget", "web-01")
    assert (online.exit_code, online.code) == (AcmExitCode.FAILURE, "agent_is_online")
    unknown = place.acm("agents", "forget", "web-1")
    assert (unknown.exit_code, unknown.code) == (AcmExitCode.UNKNOWN_AGENT, "unknown_agent")
    command = place.acm("send", "web-01", "brew").stdout.strip()
    forgotten = place.acm("agents", "forget", "web-01", "--force")
    assert forgotten.stdout == "Forgot web-01; completed as interrupted: 1 open command.\n"
    codes = {row["id"]: row["result"]["code"] for row in place.acm("commands", "--json").json}
    assert codes == {command: "interrupted"}
    assert place.acm("agents", "-o", "name").stdout == "web-02\n"


def test_unmatched_results_are_listed(places: dict[str, Place], ledger: Ledger) -> None:
    for name in ("web-01", "web-02"):
        record_feedback(ledger, name, [replace(result(f"stray of {name}"), agent=name, message="Done.")])
    assert_same(places, "unmatched", "unmatched --json", "unmatched --agent web-01 -o name", "unmatched --limit 1")
    assert_same(places, "unmatched --agent web-1")
    assert places["api"].acm("unmatched", "--agent", "web-01", "-o", "name").stdout == "stray of web-01\n"
    assert "there are more" in places["api"].acm("unmatched", "--limit", "1").stderr
    assert "Did you mean web-01?" in places["api"].acm("unmatched", "--agent", "web-1").message


def test_active_responses_are_listed(places: dict[str, Place], ledger: Ledger) -> None:
    reversal = PendingReversal("firewall-drop", ("192.0.2.7",), "a", "waiting", datetime(2026, 11, 30, tzinfo=UTC))
    status = Status("web-01", True, "1", "i", "b", "g", pending_reversals=(reversal,), pending_reversal_count=2)
    record_status(ledger, status)
    assert_same(places, "active-responses", "active-responses --json", "active-responses web-01 -o wide")
    assert_same(places, "active-responses web-02", "active-responses web-1", "active-responses -o name")
    shown = places["api"].acm("active-responses", "web-01")
    assert ("192.0.2.7" in shown.stdout, "1 of 2 are listed" in shown.stderr) == (True, True)


@pytest.mark.usefixtures("registrar")
def test_token_is_created_listed_and_revoked(place: Place) -> None:
    made = place.acm("token", "create", "web-03", "--ttl", "2h", "--json").json
    assert made["token"].startswith("acm1.")
    assert made["server"] == "https://HOST:8443"
    told = place.acm("token", "create", "web-03").stderr
    assert ("Valid once, for web-03" in told, "acm-agent enroll --server https://HOST:8443 " in told) == (True, True)
    assert place.acm("token", "revoke", made["id"][:-1]).stdout == "The token for web-03 is revoked.\n"
    states = {row["id"]: row["state"] for row in place.acm("token", "list", "--json").json}
    assert (states.pop(made["id"]), sorted(states.values())) == ("revoked", ["open", "used"])


@pytest.mark.usefixtures("registrar")
@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        ("token create acm-server", AcmExitCode.USAGE, "name_of_server"),
        ("token create .a", AcmExitCode.USAGE, "invalid_name"),
        ("token create web-03 --ttl 31d", AcmExitCode.USAGE, "ttl_too_long"),
        ("token create web-03 --ttl 0s", AcmExitCode.USAGE, "invalid_argument"),
        ("token revoke nosuch", AcmExitCode.FAILURE, "unknown_token_id"),
        ("enrolment list --agent web-9", AcmExitCode.UNKNOWN_AGENT, "unknown_agent"),
        ("enrolment revoke nosuch", AcmExitCode.FAILURE, "unknown_enrolment"),
        ("enrolment revoke web-01 --reason nosuch", AcmExitCode.USAGE, ""),
    ],
)
def test_what_cannot_be_enrolled_or_revoked_is_refused(
    place: Place, words: str, exit_code: AcmExitCode, code: str
) -> None:
    refused = place.acm(*words.split())
    assert (refused.exit_code, refused.code) == (exit_code, code)


def test_tokens_and_enrolments_look_the_same_at_both_places(
    places: dict[str, Place], registrar: Registrar, tmp_path: Path
) -> None:
    registrar.enroll("web-02", tmp_path / "web-02", "mqtt://127.0.0.1")
    places["api"].acm("token", "create", "web-03")
    places["api"].acm("enrolment", "revoke", "web-01")
    assert_same(places, "token list", "token list --json", "token list -o wide", "token revoke 0")
    assert_same(places, "enrolment list", "enrolment list --json", "enrolment list --agent web-01 -o wide")
    assert_same(places, "enrolment list --agent new-01", "enrolment revoke web-01")
    assert (
        "No enrolment was revoked: web-01 was revoked at" in places["api"].acm("enrolment", "revoke", "web-01").stdout
    )


def test_enrolment_is_revoked_and_on_the_list(place: Place, registrar: Registrar, tmp_path: Path) -> None:
    other = registrar.enroll("web-02", tmp_path / "web-02", "mqtt://127.0.0.1")
    revoked = place.acm("enrolment", "revoke", "web-01", "--reason", "superseded", "--json").json
    assert [(row["agent"], row["state"], row["reason"]) for row in revoked] == [("web-01", "revoked", "superseded")]
    (tmp_path / "ca/crl.pem").unlink()
    done = place.acm("enrolment", "revoke", other[:-2])
    assert done.stdout.startswith("Revoked 1 enrolment. The revocation list is written. ")
    assert (tmp_path / "ca/crl.pem").exists()
    assert place.acm("enrolment", "revoke", other, "--json").json == []
    place.acm("token", "create", "web-03")
    assert "its unused tokens are revoked" in place.acm("enrolment", "revoke", "web-03").stdout


def test_enrolment_needs_an_authority(place: Place, tmp_path: Path) -> None:
    for words in (["token", "create", "web-03"], ["enrolment", "revoke", "web-01"]):
        refused = place.acm(*words)
        assert (refused.exit_code, str(tmp_path / "ca") in refused.message) == (
            AcmExitCode.FAILURE,
            True,
        )


def test_file_is_stored_listed_and_deleted(place: Place, ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "agent.tar"
    file.write_bytes(b"x" * 300_000)
    artifact = place.acm("blob", "put", str(file)).json
    assert (artifact["url"], artifact["size"]) == (f"blob:{artifact['sha256']}", 300_000)
    assert b"".join(ledger.blobs.read(artifact["sha256"], 0, 300_000)) == file.read_bytes()
    assert place.acm("blob", "list", "-o", "name").stdout == f"{artifact['sha256']}\n"
    command = place.acm("send", "web-01", "upgrade-agent", f"package={json.dumps(artifact)}", "--force")
    assert place.acm("blob", "rm", artifact["sha256"]).code == "in_use"
    place.acm("cancel", command.stdout.strip(), "--abandon")
    assert place.acm("blob", "rm", artifact["url"][:-3]).stdout == "agent.tar is deleted (300000 bytes).\n"
    assert ledger.blobs.rows() == []


def test_file_is_stored_for_the_command_that_refers_to_it(place: Place, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"package")
    words = ("send", "web-01", "upgrade-agent", "--file", f"package={tmp_path}/a.tar", "--force")
    assert place.acm(*words, "--dry-run", "--json").json["parameters"]["package"]["size"] == 7
    assert place.acm("send", "web-9", *words[2:]).code == "unknown_agent"
    assert ledger.blobs.rows() == []
    assert place.acm(*words).exit_code == 0
    (blob,) = ledger.blobs.rows()
    assert ledger.commands()[0].command.parameters["package"]["sha256"] == blob.artifact.sha256


def test_what_cannot_be_stored_is_refused_alike(place: Place, ledger: Ledger, tmp_path: Path) -> None:
    with (tmp_path / "long").open("wb") as long:
        long.truncate(MAX_BLOB_BYTES + 1)
    refused = {"": "not_a_file", "none": "unreadable_file", "long": "too_large"}
    codes = {name: place.acm("blob", "put", f"{tmp_path}/{name}").code for name in refused}
    assert codes == refused
    assert {
        place.acm("send", "web-01", "upgrade-agent", "--file", f"package={tmp_path}/{name}", "--force").code
        for name in refused
    } == set(refused.values())
    assert place.acm("blob", "rm", "0" * 64).code == "unknown_blob"
    assert ledger.blobs.rows() == []


def test_files_keys_and_access_tokens_look_the_same_at_both_places(
    places: dict[str, Place], registrar: Registrar, ledger: Ledger, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        places["api"].acm("blob", "put", str(tmp_path / name))
    registrar.enroll("web-02", tmp_path / "web-02", "mqtt://127.0.0.1")
    record_status(ledger, Status("web-02", True, "1", "i", "b", "g", signing_keys_version=registrar.keys.version))
    places["api"].acm("api", "token", "create", "bob", "--role", "viewer", "--group", "edge")
    assert_same(places, "blob list", "blob list --json", "blob list -o wide --sort bytes")
    assert_same(places, "keys list", "keys list --json", "keys list -o wide --no-headers", "keys list -o table")
    assert "Not confirmed by: web-01." in places["api"].acm("keys", "list").stderr
    assert_same(places, "api token list", "api token list --json", "api token list -o wide", "api token revoke 0")


def test_access_token_is_created_used_and_revoked(place: Place, api: RunningApi) -> None:
    made = place.acm(
        "api", "token", "create", "bob", "--role", "viewer", "--group", "edge", "--ttl", "1h", "--json"
    ).json
    assert (made["principal"], made["groups"]) == ("bob", ["edge"])
    bob = Place(ACM_SERVER=api.url, ACM_TOKEN=made["token"])
    assert bob.acm("agents", "-o", "name").stdout == "web-01\nweb-02\n"
    for words in (["api", "token", "list"], ["token", "list"], ["blob", "list"], ["keys", "list"]):
        assert bob.acm(*words).exit_code == AcmExitCode.ACCESS_DENIED
    assert place.acm("api", "token", "revoke", made["id"][:-1]).stdout == "The access token of bob is revoked.\n"
    assert bob.acm("agents").exit_code == AcmExitCode.ACCESS_DENIED
    told = place.acm("api", "token", "create", "carol", "--role", "admin")
    assert (told.stdout.startswith("acm_"), "For carol, as admin, until" in told.stderr) == (True, True)


def test_journal_that_agrees_is_verified(place: Place, api: RunningApi, url: str) -> None:
    with answering_audits(url, "web-01", honest_journal):
        verified = place.acm("audit", "verify", "web-01", "--json")
    assert (verified.exit_code, verified.json["agrees"], verified.json["entries"]) == (0, True, 2)
    head = api.ledger.audits.verified("web-01")
    assert head is not None
    assert head.head.number == verified.json["head"]["number"] == 2
    (request,) = api.ledger.commands()
    assert (request.result or {}).get("data") is None, "a verified page is dropped"


def test_journal_that_differs_is_reported_until_it_is_accepted(place: Place, api: RunningApi, url: str) -> None:
    forged = chained([{"number": 1, "at": "2026-01-01T00:00:00Z", "opened": {"store_generation": "g"}}])
    with answering_audits(url, "web-01", lambda _: forged):
        differs = place.acm("audit", "verify", "web-01")
        assert (differs.exit_code, differs.code) == (AcmExitCode.AUDIT_DIFFERS, "audit_differs")
        assert differs.stdout.startswith("The journal of web-01: 1 entry on 0 commands, ")
        assert api.ledger.audits.verified("web-01") is None
        accepted = place.acm("audit", "accept", "web-01", "--json")
    assert (accepted.exit_code, accepted.json["difference_count"]) == (0, 2)
    verified = api.ledger.audits.verified("web-01")
    assert verified is not None
    assert verified.accepted == verified.head


def test_audit_that_cannot_be_made_ends_with_the_same_code(place: Place, url: str) -> None:
    unknown = place.acm("audit", "verify", "web-1")
    assert (unknown.exit_code, unknown.code, "Did you mean" in unknown.message) == (
        AcmExitCode.UNKNOWN_AGENT,
        "unknown_agent",
        True,
    )
    late = place.acm("audit", "verify", "web-01", "--wait", "0.1")
    assert (late.exit_code, late.code) == (AcmExitCode.WAIT_TIMEOUT, "wait_timeout")
    unreadable = GetAuditJournalData(JournalMark(-1, "x"), JournalMark(1, "x"), ())
    with answering_audits(url, "web-01", lambda _: unreadable):
        broken = place.acm("audit", "accept", "web-01")
    assert (broken.exit_code, broken.code) == (AcmExitCode.FAILURE, "malformed")


@pytest.mark.usefixtures("registrar")
def test_operator_certificate_is_listed_and_revoked(places: dict[str, Place], place: Place, tmp_path: Path) -> None:
    for name in ("dora", "erik"):
        words = ("--role", "viewer", "--group", "edge", "--out", str(tmp_path))
        assert places["ledger"].acm("api", "certificate", "create", name, *words).exit_code == 0
    everything = (
        "api certificate list",
        "api certificate list --json",
        "api certificate list -o wide --sort principal",
    )
    assert_same(places, *everything, "api certificate revoke 0")
    ids = {row["principal"]: row["id"] for row in place.acm("api", "certificate", "list", "--json").json}
    revoked = place.acm("api", "certificate", "revoke", ids["cert:dora"])
    assert revoked.stdout.startswith("The certificate of cert:dora is revoked. A running enrolment server adds it ")
    again = place.acm("api", "certificate", "revoke", ids["cert:dora"], "--json")
    assert (again.exit_code, again.code) == (AcmExitCode.FAILURE, "unknown_operator_certificate")
    rows = place.acm("api", "certificate", "list", "--json").json
    assert {row["principal"]: row["revoked_at"] is None for row in rows} == {"cert:dora": False, "cert:erik": True}


def test_access_token_of_nobody_or_for_ever_is_refused(place: Place) -> None:
    for words, code in ((["a b"], "invalid_name"), (["bob", "--ttl", "9999d"], "invalid_argument")):
        refused = place.acm("api", "token", "create", *words, "--role", "viewer")
        assert (refused.exit_code, refused.code) == (AcmExitCode.USAGE, code)


def test_group_is_configured(place: Place, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("n = 1")
    for words, code in (
        (("nosuch", f"{tmp_path}/a.toml"), "no_agent_matches"),
        (("edge", f"{tmp_path}/none.tar.gz"), "unreadable_file"),
        (("edge", str(tmp_path)), "not_a_file"),
    ):
        assert place.acm("group", "configure", *words).code == code
    assert (ledger.blobs.rows(), ledger.commands()) == ([], [])
    operation = place.acm("group", "configure", "edge", f"{tmp_path}/a.toml", "--json").json
    assert (operation["target"], operation["size"]) == ("group edge", 2)
    (blob,) = ledger.blobs.rows()
    sent = [row.command.parameters for row in ledger.commands()]
    assert [(it["group"], it["artifact"]["sha256"]) for it in sent] == [("edge", blob.artifact.sha256)] * 2
    place.acm("operation", "cancel", operation["id"], "--abandon")
    assert "the configuration of the group edge" in place.acm("blob", "rm", blob.artifact.sha256).message


def test_doctor_checks_the_machine_of_the_api(url: str) -> None:
    clock: Any = MachineClock()
    found = [
        ok("ledger", "It answers."),
        NOT_CHECKED.found("broker", "It is far away."),
        WRITES.found("access", "It is open."),
    ]
    checks = [Check(finding.check, lambda finding=finding: iter([finding])) for finding in found]
    with open_database(url) as database, running_api(Ledger(database, now=clock.now), clock, checks=checks) as api:
        token = api.as_(Role.ADMIN)["Authorization"].removeprefix("Bearer ")
        asked = Place(ACM_SERVER=api.url, ACM_TOKEN=token).acm("doctor", "--json")
        refused = Place(ACM_SERVER=api.url, ACM_TOKEN=api.as_(Role.VIEWER)["Authorization"].removeprefix("Bearer "))
        assert refused.acm("doctor").code == "forbidden"
    assert asked.json == [finding.as_json() for finding in found]
    assert asked.exit_code == AcmExitCode.CHECKS_FAILED
