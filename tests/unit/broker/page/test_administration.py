"""What administrators see of enrolments, keys and the audit log, and what others do not."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.access.audit_log import AuditLog
from broker.access.grants import Credential
from broker.app.config import ServerConfig
from broker.app.factories import open_database
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.enrolment.tokens import TokenStore, new_enrolment_token
from broker.fleet.models import Principal, Role
from broker.ledger.ids import new_id
from broker.ledger.ledger import Ledger
from broker.signing.key_store import SigningKeyStore, create_signing_keys
from tests.support.api import RunningApi, running_api, with_agents
from tests.support.fakes.clock import TurnedClock
from tests.support.page import Visitor, visitor

ADMINISTRATION = ("/enrolment-tokens", "/keys", "/audit-log")


def enroll(api: RunningApi, agent: str, *ends_in: int, revoked: bool = False) -> str:
    """Record an enrolment with certificates that end in so many days; return its id."""
    now, enrolment = api.clock.now(), new_id()
    with api.ledger.database.transaction() as connection:
        row = {"id": enrolment, "agent": agent, "enrolled_at": (now - timedelta(days=90)).timestamp()}
        row |= {"revoked_at": now.timestamp(), "reason": "superseded"} if revoked else {}
        connection.execute(ENROLMENTS.insert().values(**row))
        for days in ends_in:
            facts = {"serial": f"{agent}-{days}", "enrolment_id": enrolment, "key": "k", "pem": "", "not_before": 0.0}
            end = (now + timedelta(days=days)).timestamp()
            connection.execute(CERTIFICATES.insert().values(**facts, not_after=end))
    return enrolment


def names(who: Visitor, path: str) -> list[str]:
    return re.findall(r'<a href="/agents/([^"]+)">', who.get(path).text.split("<tbody")[-1])


def log(api: RunningApi, name: str, action: str, target: str, subject: str = "") -> None:
    with api.ledger.database.transaction() as connection:
        by = Credential(Principal(name, Role.OPERATOR), "c")
        AuditLog(api.ledger.database, now=api.clock.now).add(connection, by, action, target, subject)


def test_enrolments_are_searched_filtered_sorted_and_paged(each_api: RunningApi) -> None:
    enroll(each_api, "web-01", 20, 50)
    enroll(each_api, "web-02", -3)
    ended = enroll(each_api, "db-01", 5, revoked=True)
    for number in range(50):
        enroll(each_api, f"many-{number:02}", 30)
    with visitor(each_api, Role.VIEWER) as vera:
        assert names(vera, "/enrolments?name=WEB-&sort=agent&order=asc") == ["web-01", "web-02"]
        assert names(vera, "/enrolments?state=expired") == ["web-02"]
        assert names(vera, "/enrolments?state=revoked") == ["db-01"]
        assert names(vera, "/enrolments?state=valid&sort=end&order=desc")[0] == "web-01"
        assert names(vera, "/enrolments?sort=end&order=asc")[:2] == ["web-02", "db-01"]
        assert names(vera, "/enrolments?sort=revoked&order=desc")[0] == "db-01"
        assert len(names(vera, "/enrolments")) == 50
        assert sorted(names(vera, "/enrolments?page=2")) == ["db-01", "web-01", "web-02"]
        assert " of 53 enrolments" in vera.get("/enrolments?page=2").text
        assert "web-01-50" in vera.get("/enrolments?name=web-01").text
        assert "superseded" in vera.get(f"/enrolments/{ended}").text
        assert vera.get("/enrolments/no").status_code == 404
        assert vera.get("/enrolments?state=no").status_code == 400


def test_principal_with_groups_sees_enrolments_and_tokens_of_its_agents_alone(each_api: RunningApi) -> None:
    others = enroll(each_api, "db-01", 5)
    enroll(each_api, "web-01", 5)
    tokens = TokenStore(each_api.ledger.database, now=each_api.clock.now)
    for name in ("web-02", "db-01"):
        tokens.add(name, new_enrolment_token("f"), timedelta(hours=1))
    with visitor(each_api, Role.ADMIN, "edge") as eve:
        assert names(eve, "/enrolments") == ["web-01"]
        assert names(eve, "/enrolment-tokens") == ["web-02"]
        assert eve.get(f"/enrolments/{others}").status_code == 404
        assert [eve.get(it).status_code for it in ("/keys", "/audit-log")] == [403, 403]
        assert "Audit log" not in eve.get("/").text


def test_tokens_are_listed_by_their_states(each_api: RunningApi) -> None:
    tokens = TokenStore(each_api.ledger.database, now=each_api.clock.now)
    for name, minutes in (("web-01", 60), ("web-02", 1), ("db-01", 60)):
        tokens.add(name, new_enrolment_token("f"), timedelta(minutes=minutes))
    tokens.revoke(next(it.id for it in tokens.all() if it.agent == "db-01"))
    each_api.clock.turn(120)
    with visitor(each_api, Role.ADMIN) as root:
        for state, agents in (("open", ["web-01"]), ("expired", ["web-02"]), ("revoked", ["db-01"]), ("used", [])):
            assert names(root, f"/enrolment-tokens?state={state}") == agents
        assert len(names(root, "/enrolment-tokens?name=web")) == 2


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_administration_needs_its_role(api: RunningApi, role: Role) -> None:
    with visitor(api, role) as vera:
        assert [vera.get(path).status_code for path in ADMINISTRATION] == [403, 403, 403]
        assert not set(re.findall(r'href="(/[a-z-]+)"', vera.get("/enrolments").text)) & set(ADMINISTRATION)


def test_audit_log_is_searched_and_paged(each_api: RunningApi) -> None:
    first = each_api.clock.now()
    for number in range(60):
        log(each_api, "alice", "send stop-agent", "group edge", f"op-{number:02}")
        each_api.clock.turn(1)
    log(each_api, "bob", "revoke agent", "web-01")
    each_api.clock.turn(2 * 86400)
    with visitor(each_api, Role.ADMIN, name="root") as root:
        text = root.get("/audit-log").text
        assert "50 entries on this page" in text
        older = re.search(r'rel="next" href="([^"]+)"', text)
        assert older
        assert "12 entries on this page" in root.get(older[1].replace("&amp;", "&")).text
        assert "1 entry on this page" in root.get("/audit-log?principal=BOB").text
        assert "1 entry on this page" in root.get("/audit-log?text=op-07").text
        assert "No entry matches." in root.get("/audit-log?text=op-07&principal=bob").text
        assert "log in" not in root.get(f"/audit-log?until={first:%Y-%m-%d}").text
        assert root.get("/audit-log?until=soon").status_code == 400
        assert 'href="/enrolments?name=web-01">revoke agent</a>' in text


def test_filter_of_the_audit_log_finds_what_lies_far_back(api: RunningApi) -> None:
    log(api, "bob", "forget agent", "web-09")
    with api.ledger.database.transaction() as connection:
        for _ in range(1100):
            by = Credential(Principal("alice", Role.OPERATOR), "c")
            AuditLog(api.ledger.database, now=api.clock.now).add(connection, by, "send x", "y", "z")
    with visitor(api, Role.ADMIN) as root:
        assert "web-09" in root.get("/audit-log?principal=bob").text


def test_id_leads_to_its_command_or_operation(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER) as vera:
        assert vera.get("/ids/nothing").headers["Location"] == "/operations/nothing"


@pytest.fixture
def api_with_keys(tmp_path: Path, clock: TurnedClock) -> Iterator[RunningApi]:
    create_signing_keys(tmp_path / "signing", clock.now())
    config = ServerConfig(ca="/nonexistent", signing_keys=str(tmp_path / "signing"))
    with (
        open_database(f"sqlite:///{tmp_path}/ledger.db") as database,
        running_api(with_agents(Ledger(database, now=clock.now)), clock, config=config) as running,
    ):
        yield running


def test_keys_are_shown_with_who_has_not_confirmed_them(api_with_keys: RunningApi, tmp_path: Path) -> None:
    enroll(api_with_keys, "web-01", 5)
    (key,) = SigningKeyStore(tmp_path / "signing").entries
    with visitor(api_with_keys, Role.ADMIN) as root:
        text = root.get("/keys").text
        assert "Confirmed by 0 of 1 enrolled agent" in text
        assert key.id in text
        assert "PRIVATE" not in text
        assert 'href="/agents/web-01">web-01</a>' in text


def test_api_without_keys_says_so(api: RunningApi) -> None:
    with visitor(api, Role.ADMIN) as root:
        answer = root.get("/keys")
    assert answer.status_code == 501
    assert "signing_keys" in answer.text
