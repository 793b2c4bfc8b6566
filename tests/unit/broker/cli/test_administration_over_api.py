"""The commands of an administrator, each on a ledger and over the API of the same ledger: one suite for both."""

from dataclasses import replace
from pathlib import Path

import pytest

from broker.cli.exit_codes import AcmExitCode
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi
from tests.support.enrolled import Registrar
from tests.support.makers import result
from tests.support.places import Place
from tests.support.recorded import record_feedback


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
