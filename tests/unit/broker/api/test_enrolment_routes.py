"""Enrolment tokens, enrolments and their revocation by the API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from broker.access.tables import ANSWERS
from broker.app.config import ServerConfig
from broker.app.factories import utc_now
from broker.contract.enrolment_token import EnrolmentToken
from broker.enrolment.store import IssuedCertificate
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, assert_problem, running_api, with_agents
from tests.support.enrolling import EnrolmentBackend
from tests.support.fakes.clock import TurnedClock

TOKENS, ENROLMENTS = "/v1/enrolment-tokens", "/v1/enrolments"


@pytest.fixture
def backend(tmp_path: Path, ledger_url: str, clock: TurnedClock) -> Iterator[EnrolmentBackend]:
    clock.turn((utc_now() - clock.now()).total_seconds())  # the time of the installation, which signs the list
    backend = EnrolmentBackend.create(tmp_path, clock.now, ledger_url)
    with backend.database:
        yield backend


@pytest.fixture
def api(backend: EnrolmentBackend, clock: TurnedClock, tmp_path: Path) -> Iterator[RunningApi]:
    config = ServerConfig(ca=str(tmp_path / "ca"), enroll_broker="mqtts://acm.example.org")
    with running_api(with_agents(Ledger(backend.database, now=clock.now)), clock, config=config) as running:
        yield running


def post(api: RunningApi, path: str, body: Any = None, who: dict[str, str] | None = None, key: str = "") -> Any:
    headers = (who or api.as_(Role.ADMIN)) | ({"Idempotency-Key": key} if key else {})
    return api.http.post(path, json=body, headers=headers)


def get(api: RunningApi, path: str, who: dict[str, str] | None = None, **query: Any) -> Any:
    return api.http.get(path, headers=who or api.as_(Role.ADMIN), params=query or None)


def revoked_serials(tmp_path: Path, backend: EnrolmentBackend) -> set[int]:
    found = backend.authority.read_revocation_list(tmp_path / "ca/crl.pem")
    assert found is not None
    return {entry.serial for entry in found.entries}


def enrolled(backend: EnrolmentBackend, api: RunningApi, agent: str) -> tuple[IssuedCertificate, dict[str, Any]]:
    issued = backend.enroll(agent)
    view: dict[str, Any] = get(api, f"{ENROLMENTS}/{issued.enrolment_id}").json()
    return issued, view


def test_token_of_the_api_enrolls_its_agent_once(api: RunningApi, backend: EnrolmentBackend) -> None:
    made = post(api, TOKENS, {"agent": "new-01", "ttl_s": 60})
    assert made.status_code == 201
    created = made.json()
    text, server = created.pop("token"), created.pop("server")
    assert (created["agent"], created["state"], server) == ("new-01", "open", "https://acm.example.org:8443")
    assert get(api, TOKENS).json() == {"items": [created], "next": None}
    issued = backend.enroll("new-01", token=EnrolmentToken.parse(text))
    (used,) = get(api, TOKENS, agent="new-01", state="used").json()["items"]
    assert (used["id"], used["enrolment_id"]) == (created["id"], issued.enrolment_id)
    assert get(api, TOKENS, state="open").json()["items"] == []


def test_repeated_request_for_a_token_gets_the_same_one_which_the_ledger_does_not_have(
    api: RunningApi, backend: EnrolmentBackend
) -> None:
    first = post(api, TOKENS, {"agent": "new-01"}, key="3c5b9d5e")
    again = post(api, TOKENS, {"agent": "new-01"}, key="3c5b9d5e")
    assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
    assert len(get(api, TOKENS).json()["items"]) == 1
    with backend.database.reading() as connection:
        stored = str(connection.execute(sa.select(ANSWERS)).all())
    assert first.json()["token"] not in stored
    assert "3c5b9d5e" not in stored


def test_unused_token_is_revoked(api: RunningApi) -> None:
    token = post(api, TOKENS, {"agent": "new-01"}).json()["id"]
    assert post(api, f"{TOKENS}/{token}/revoke").json()["state"] == "revoked"
    assert_problem(post(api, f"{TOKENS}/none/revoke"), 404, "unknown_token_id")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"agent": "No Name"}, "invalid_name"),
        ({"agent": "acm-server"}, "name_of_server"),
        ({"agent": "new-01", "ttl_s": 30 * 86400 + 1}, "invalid_member"),
        ({"agent": "new-01", "ttl_s": 0}, "invalid_member"),
    ],
)
def test_token_that_cannot_be_is_refused(api: RunningApi, body: Any, code: str) -> None:
    assert_problem(post(api, TOKENS, body), 400, code)


def test_enrolments_are_listed_in_pages(api: RunningApi, backend: EnrolmentBackend) -> None:
    ids = [backend.enroll(agent).enrolment_id for agent in ("web-01", "web-02", "db-01")]
    page = get(api, ENROLMENTS, limit=2).json()
    rest = get(api, ENROLMENTS, limit=2, cursor=page["next"]).json()
    assert sorted(it["id"] for it in page["items"] + rest["items"]) == sorted(ids)
    assert rest["next"] is None
    (one,) = get(api, ENROLMENTS, agent="web-02").json()["items"]
    assert (one["id"], one["state"], one["reason"]) == (ids[1], "valid", None)
    assert get(api, ENROLMENTS, state="revoked").json()["items"] == []
    assert_problem(get(api, f"{ENROLMENTS}/none"), 404, "unknown_enrolment")


def test_revoked_enrolment_is_on_the_list_of_the_broker(
    api: RunningApi, backend: EnrolmentBackend, tmp_path: Path
) -> None:
    issued, before = enrolled(backend, api, "web-01")
    other, _ = enrolled(backend, api, "web-01")
    revoked = post(api, f"{ENROLMENTS}/{issued.enrolment_id}/revoke", {"reason": "key-compromise"}).json()
    assert (revoked["state"], revoked["reason"], revoked["serial"]) == ("revoked", "key-compromise", before["serial"])
    assert revoked_serials(tmp_path, backend) == {int(before["serial"], 16)}
    assert post(api, f"{ENROLMENTS}/{issued.enrolment_id}/revoke", {}).json() == revoked
    assert get(api, f"{ENROLMENTS}/{other.enrolment_id}").json()["state"] == "valid"


def test_repeat_of_a_revocation_writes_a_list_that_was_not_written(
    api: RunningApi, backend: EnrolmentBackend, tmp_path: Path
) -> None:
    _, view = enrolled(backend, api, "web-01")
    before = (tmp_path / "ca/crl.pem").read_bytes()
    first = post(api, "/v1/agents/web-01/revoke", {}, key="k")
    (tmp_path / "ca/crl.pem").write_bytes(before)  # as if the API had been killed after its commit
    again = post(api, "/v1/agents/web-01/revoke", {}, key="k")
    assert again.content == first.content
    assert revoked_serials(tmp_path, backend) == {int(view["serial"], 16)}


def test_agent_is_revoked_with_its_unused_tokens(api: RunningApi, backend: EnrolmentBackend) -> None:
    issued, _ = enrolled(backend, api, "web-01")
    post(api, TOKENS, {"agent": "web-01"})
    revoked = post(api, "/v1/agents/web-01/revoke", {"reason": "superseded"}).json()
    assert [it["id"] for it in revoked["enrolments"]] == [issued.enrolment_id]
    assert get(api, TOKENS, agent="web-01", state="open").json()["items"] == []
    assert post(api, "/v1/agents/web-01/revoke", {}).json() == {"enrolments": []}
    assert_problem(post(api, "/v1/agents/db-01/revoke", {}), 404, "unknown_enrolment")
    assert_problem(post(api, "/v1/agents/web-01/revoke", {"reason": "boredom"}), 400, "invalid_member")


def test_principal_with_groups_enrolls_and_revokes_only_their_agents(
    api: RunningApi, backend: EnrolmentBackend
) -> None:
    edge = api.as_(Role.ADMIN, "edge")
    other, _ = enrolled(backend, api, "db-01")
    mine, _ = enrolled(backend, api, "web-01")
    token = post(api, TOKENS, {"agent": "db-01"}).json()["id"]
    assert post(api, TOKENS, {"agent": "web-02"}, edge).status_code == 201
    assert {it["agent"] for it in get(api, TOKENS, edge).json()["items"]} == {"web-01", "web-02"}
    assert [it["id"] for it in get(api, ENROLMENTS, edge).json()["items"]] == [mine.enrolment_id]
    for answer, code in (
        (post(api, TOKENS, {"agent": "db-01"}, edge), "unknown_agent"),
        (post(api, TOKENS, {"agent": "new-01"}, edge), "unknown_agent"),
        (post(api, f"{TOKENS}/{token}/revoke", None, edge), "unknown_token_id"),
        (get(api, f"{ENROLMENTS}/{other.enrolment_id}", edge), "unknown_enrolment"),
        (post(api, f"{ENROLMENTS}/{other.enrolment_id}/revoke", {}, edge), "unknown_enrolment"),
        (post(api, "/v1/agents/db-01/revoke", {}, edge), "unknown_agent"),
    ):
        assert_problem(answer, 404, code)
    assert post(api, f"{ENROLMENTS}/{mine.enrolment_id}/revoke", {}, edge).status_code == 200
    assert get(api, f"{ENROLMENTS}/{other.enrolment_id}").json()["state"] == "valid"


def test_who_enrolled_and_revoked_is_logged_without_secrets(api: RunningApi, backend: EnrolmentBackend) -> None:
    created = post(api, TOKENS, {"agent": "new-01"}).json()
    issued, _ = enrolled(backend, api, "web-01")
    post(api, f"{ENROLMENTS}/{issued.enrolment_id}/revoke", {})
    log = get(api, "/v1/audit-log").json()["items"]
    assert sorted((it["action"], it["target"], it["subject"]) for it in log) == [
        ("create enrolment token", "new-01", created["id"]),
        ("revoke enrolment", issued.enrolment_id, issued.enrolment_id),
    ]
    assert created["token"] not in str(log)


def test_api_without_the_authority_says_so_and_changes_nothing(backend: EnrolmentBackend, clock: TurnedClock) -> None:
    with running_api(with_agents(Ledger(backend.database, now=clock.now)), clock) as api:
        issued, _ = enrolled(backend, api, "web-01")
        for answer in (
            post(api, TOKENS, {"agent": "new-01"}),
            post(api, f"{ENROLMENTS}/{issued.enrolment_id}/revoke", {}),
            post(api, "/v1/agents/web-01/revoke", {}),
        ):
            assert_problem(answer, 501, "not_available_here")
        assert get(api, f"{ENROLMENTS}/{issued.enrolment_id}").json()["state"] == "valid"
