"""Certificates of operators that are seen and revoked by the API: only those for groups that the admin has."""

from datetime import timedelta
from pathlib import Path

from broker.access.operator_certificates import OperatorCertificateStore
from broker.fleet.models import Principal, Role
from broker.pki.authority import CertificateAuthority, create_authority
from tests.support.api import RunningApi, assert_problem
from tests.support.fakes.clock import TurnedClock

CERTIFICATES = "/v1/operator-certificates"


def with_certificates(api: RunningApi, clock: TurnedClock, directory: Path) -> dict[str, str]:
    """Record a certificate for the group edge and one for all agents; return their ids by their operators."""
    create_authority(directory / "ca", "test", clock.now())
    authority = CertificateAuthority(directory / "ca", now=clock.now)
    store = OperatorCertificateStore(api.ledger.database, now=clock.now)
    ids = {}
    for name, groups in (("carol", frozenset({"edge"})), ("dora", None)):
        certificate = authority.write_operator_certificate(name, directory, timedelta(days=1))
        ids[name] = store.add(Principal(name, Role.OPERATOR, groups), certificate, "root@host").id
    return ids


def test_certificate_is_revoked_once_and_by_whom_is_in_the_log(
    api: RunningApi, clock: TurnedClock, tmp_path: Path
) -> None:
    ids, admin = with_certificates(api, clock, tmp_path), api.as_(Role.ADMIN)
    path = f"{CERTIFICATES}/{ids['dora']}/revoke"
    first, again = (api.http.post(path, headers={**admin, "Idempotency-Key": "k"}) for _ in range(2))
    assert first.json()["revoked_at"] is not None
    assert again.json() == first.json()
    assert_problem(api.http.post(path, headers=admin), 404, "unknown_operator_certificate")
    page = api.http.get(CERTIFICATES, headers=admin, params={"limit": 1}).json()
    rest = api.http.get(CERTIFICATES, headers=admin, params={"limit": 1, "cursor": page["next"]}).json()
    assert [it["principal"] for it in page["items"] + rest["items"]] == ["cert:dora", "cert:carol"]
    (entry,) = api.http.get("/v1/audit-log", headers=admin).json()["items"]
    assert (entry["action"], entry["subject"]) == ("revoke operator certificate", ids["dora"])


def test_admin_of_groups_sees_and_revokes_only_certificates_for_some_of_them(
    api: RunningApi, clock: TurnedClock, tmp_path: Path
) -> None:
    ids, edge = with_certificates(api, clock, tmp_path), api.as_(Role.ADMIN, "edge", "core", name="eve")
    assert [it["id"] for it in api.http.get(CERTIFICATES, headers=edge).json()["items"]] == [ids["carol"]]
    refused = api.http.post(f"{CERTIFICATES}/{ids['dora']}/revoke", headers=edge)
    assert_problem(refused, 404, "unknown_operator_certificate")
    assert api.http.post(f"{CERTIFICATES}/{ids['carol']}/revoke", headers=edge).status_code == 200
    everything = api.http.get(CERTIFICATES, headers=api.as_(Role.ADMIN)).json()["items"]
    assert {it["id"]: it["revoked_at"] is None for it in everything} == {ids["dora"]: True, ids["carol"]: False}
