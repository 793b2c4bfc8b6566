"""The routes of the API on a ledger: what they answer, which role each needs, and which problems they report."""

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from tests.support.api import AGENTS, RunningApi, assert_problem, running_api, with_agents
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback

SEND = {"type": "restart-agent", "agents": ["web-01"]}
SEND_TO_ALL = {"type": "restart-agent", "all": True}


def post(api: RunningApi, path: str, body: Any = None, *, role: Role = Role.OPERATOR, key: str | None = None) -> Any:
    headers = api.as_(role) | ({} if key is None else {"Idempotency-Key": key})
    return api.http.post(path, json=body, headers=headers)


def get(api: RunningApi, path: str, role: Role = Role.VIEWER, **query: Any) -> Any:
    return api.http.get(path, headers=api.as_(role), params=query or None)


def test_command_to_one_agent_is_sent_shown_and_completed(api: RunningApi) -> None:
    sent = post(api, "/v1/commands", SEND | {"parameters": {"delay_s": 1}, "expires_in_s": 60})
    assert sent.status_code == 201
    command = sent.json()["command"]
    assert get(api, f"/v1/commands/{command['id']}").json() == command
    assert (command["agent"], command["state"]) == ("web-01", "queued")
    assert command["command"]["origin"] == {"name": "operator", "module": "api"}
    record_feedback(api.ledger, "web-01", [result(command["id"])])
    done = get(api, f"/v1/commands/{command['id']}", wait_s=30).json()
    assert (done["state"], done["outcome"]) == ("completed", "success")


def test_command_to_all_is_an_operation_to_follow(api: RunningApi) -> None:
    operation = post(api, "/v1/commands", SEND_TO_ALL).json()["operation"]
    assert (operation["size"], operation["target"]) == (3, "all agents")
    progress = get(api, f"/v1/operations/{operation['id']}").json()
    assert progress == {"operation": operation, "counts": {"queued": 3}, "done": False}
    assert get(api, "/v1/operations").json() == {"items": [operation], "next": None}
    page = get(api, "/v1/commands", operation=operation["id"], limit=2).json()
    rest = get(api, "/v1/commands", operation=operation["id"], limit=2, cursor=page["next"]).json()
    assert [it["agent"] for it in page["items"] + rest["items"]] == list(AGENTS)
    assert post(api, f"/v1/operations/{operation['id']}/cancel").json() == {"count": 3}
    assert post(api, f"/v1/operations/{operation['id']}/abandon").json() == {"count": 0}
    assert get(api, f"/v1/operations/{operation['id']}", wait_s=30).json()["done"]


def test_dry_run_sends_nothing(api: RunningApi) -> None:
    answer = post(api, "/v1/commands", SEND_TO_ALL | {"dry_run": True}, key="k")
    assert answer.status_code == 200
    assert answer.json() == {"command": None, "operation": None, "agents": list(AGENTS), "warnings": []}
    assert get(api, "/v1/commands").json()["items"] == []
    assert post(api, "/v1/commands", SEND_TO_ALL, key="k").json()["operation"]


def test_command_is_cancelled_or_abandoned_once(api: RunningApi) -> None:
    first, second = (post(api, "/v1/commands", SEND).json()["command"]["id"] for _ in range(2))
    api.ledger.claim_due(1)
    cancelled = post(api, f"/v1/commands/{second}/cancel").json()
    abandoned = post(api, f"/v1/commands/{first}/abandon").json()
    assert [(it["outcome"], it["result"]["code"]) for it in (cancelled, abandoned)] == [
        ("error", "cancelled"),
        ("error", "interrupted"),
    ]
    assert_problem(post(api, f"/v1/commands/{first}/abandon"), 409, "already_completed")


def test_timeline_has_each_hop_and_why_an_open_command_waits(api: RunningApi) -> None:
    command = post(api, "/v1/commands", SEND).json()["command"]["id"]
    waiting = get(api, f"/v1/commands/{command}/timeline").json()
    assert (waiting["waiting"]["hop"], waiting["waiting"]["reason"]) == ("claimed", "server_down")
    api.clock.turn(1)
    api.ledger.claim_due(1)
    api.clock.turn(2)
    record_feedback(api.ledger, "web-01", [result(command)])
    done = get(api, f"/v1/commands/{command}/timeline").json()
    assert [(it["name"], it["took_s"]) for it in done["hops"] if it["took_s"]] == [("claimed", 1.0), ("reported", 2.0)]
    assert (done["outcome"], done["total_s"], done["waiting"]) == ("success", 3.0, None)


def test_agents_and_groups_are_listed(api: RunningApi) -> None:
    assert [it["name"] for it in get(api, "/v1/agents").json()["items"]] == list(AGENTS)
    assert [it["name"] for it in get(api, "/v1/agents", name="web-*", group="edge").json()["items"]] == [
        "web-01",
        "web-02",
    ]
    assert get(api, "/v1/agents/web-01").json()["status"]["version"] == "1"
    assert get(api, "/v1/groups").json()["items"] == [{"name": "edge", "agents": ["web-01", "web-02"]}]


def test_members_of_a_group_are_changed_and_that_is_logged(api: RunningApi) -> None:
    added = post(api, "/v1/groups/core/add", {"agents": ["db-01", "web-01"]}, role=Role.ADMIN, key="k")
    assert added.json() == {"name": "core", "agents": ["db-01", "web-01"]}
    removed = post(api, "/v1/groups/core/remove", {"agents": ["web-01", "web-02"]}, role=Role.ADMIN)
    assert removed.json() == {"name": "core", "agents": ["db-01"]}
    again = post(api, "/v1/groups/core/add", {"agents": ["db-01", "web-01"]}, role=Role.ADMIN, key="k")
    assert again.json() == added.json()
    assert api.ledger.groups.members("core") == ["db-01"]
    log = get(api, "/v1/audit-log", Role.ADMIN).json()["items"]
    assert sorted((it["action"], it["target"], it["subject"]) for it in log) == [
        ("add to group core", "db-01,web-01", "core"),
        ("remove from group core", "web-01,web-02", "core"),
    ]
    for body, status, code in (
        ({"agents": ["mail-01"]}, 404, "unknown_agent"),
        ({"agents": []}, 400, "invalid_member"),
        ({"agents": ["No Name"]}, 400, "invalid_name"),
    ):
        assert_problem(post(api, "/v1/groups/core/add", body, role=Role.ADMIN), status, code)


def test_admin_of_a_group_adds_no_other_agents_to_it(api: RunningApi) -> None:
    admin = api.as_(Role.ADMIN, "edge")
    other = api.http.post("/v1/groups/edge/add", json={"agents": ["db-01"]}, headers=admin)
    assert_problem(other, 404, "unknown_agent")
    elsewhere = api.http.post("/v1/groups/core/add", json={"agents": ["web-01"]}, headers=admin)
    assert_problem(elsewhere, 404, "unknown_group")


def test_principal_with_groups_has_only_their_agents(api: RunningApi) -> None:
    edge = api.as_(Role.OPERATOR, "edge")
    assert api.http.get("/v1/me", headers=edge).json() == {"name": "operator", "role": "operator", "groups": ["edge"]}
    other = post(api, "/v1/commands", {"type": "restart-agent", "agents": ["db-01"]}).json()["command"]["id"]
    assert_problem(api.http.get(f"/v1/commands/{other}", headers=edge), 404, "unknown_command")
    assert_problem(api.http.post(f"/v1/commands/{other}/cancel", headers=edge), 404, "unknown_command")
    sent = api.http.post("/v1/commands", json=SEND_TO_ALL, headers=edge).json()
    assert sent["operation"]["size"] == 2


def test_problem_has_the_code_of_its_class(api: RunningApi) -> None:
    refused = post(api, "/v1/commands", {"type": "restart-agent", "agents": ["x-*"]})
    assert_problem(refused, 404, "no_agent_matches")
    assert refused.json()["kind"] == "unknown_agent"
    assert api.http.get("/v1/nothing").json()["kind"] == "no_such_route"


def test_command_is_sent_again_once_for_each_key(api: RunningApi) -> None:
    sent = post(api, "/v1/commands", {"type": "restart-agent", "agents": ["web-01"]}).json()["command"]["id"]
    assert_problem(post(api, f"/v1/commands/{sent}/retry"), 409, "still_open")
    post(api, f"/v1/commands/{sent}/abandon")
    again = post(api, f"/v1/commands/{sent}/retry", key="k")
    assert (again.status_code, again.json()["command"]["id"] == sent) == (201, False)
    assert post(api, f"/v1/commands/{sent}/retry", key="k").json() == again.json()


@pytest.mark.parametrize(
    "path", ["/v1/audit-log", "/v1/doctor", "/v1/signing-keys", "/v1/blobs", f"/v1/blobs/{'0' * 64}"]
)
def test_what_is_of_the_whole_fleet_is_not_for_a_principal_with_groups(api: RunningApi, path: str) -> None:
    assert_problem(api.http.get(path, headers=api.as_(Role.ADMIN, "edge")), 403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/v1/commands", Role.VIEWER),
        ("GET", "/v1/commands/x", Role.VIEWER),
        ("GET", "/v1/commands/x/timeline", Role.VIEWER),
        ("POST", "/v1/commands", Role.OPERATOR),
        ("POST", "/v1/commands/x/cancel", Role.OPERATOR),
        ("POST", "/v1/commands/x/abandon", Role.OPERATOR),
        ("POST", "/v1/commands/x/retry", Role.OPERATOR),
        ("GET", "/v1/operations", Role.VIEWER),
        ("GET", "/v1/operations/x", Role.VIEWER),
        ("POST", "/v1/operations/x/cancel", Role.OPERATOR),
        ("POST", "/v1/operations/x/abandon", Role.OPERATOR),
        ("POST", "/v1/operations/x/retry", Role.OPERATOR),
        ("GET", "/v1/agents", Role.VIEWER),
        ("GET", "/v1/agents/x", Role.VIEWER),
        ("GET", "/v1/events?after=1", Role.VIEWER),
        ("GET", "/v1/groups", Role.VIEWER),
        ("GET", "/v1/groups/x", Role.VIEWER),
        ("POST", "/v1/groups/x/add", Role.ADMIN),
        ("POST", "/v1/groups/x/remove", Role.ADMIN),
        ("POST", "/v1/groups/x/configure", Role.ADMIN),
        ("GET", "/v1/agents/x/audit", Role.VIEWER),
        ("POST", "/v1/agents/x/forget", Role.ADMIN),
        ("POST", "/v1/agents/x/revoke", Role.ADMIN),
        ("GET", "/v1/doctor", Role.ADMIN),
        ("GET", "/v1/summary", Role.VIEWER),
        ("GET", "/v1/unmatched-results", Role.VIEWER),
        ("GET", "/v1/blobs", Role.VIEWER),
        ("GET", "/v1/blobs/x", Role.VIEWER),
        ("PUT", "/v1/blobs/x", Role.OPERATOR),
        ("POST", "/v1/blobs/x/remove", Role.OPERATOR),
        ("GET", "/v1/enrolment-tokens", Role.ADMIN),
        ("POST", "/v1/enrolment-tokens", Role.ADMIN),
        ("POST", "/v1/enrolment-tokens/x/revoke", Role.ADMIN),
        ("GET", "/v1/enrolments", Role.VIEWER),
        ("GET", "/v1/enrolments/x", Role.VIEWER),
        ("POST", "/v1/enrolments/x/revoke", Role.ADMIN),
        ("GET", "/v1/signing-keys", Role.ADMIN),
        ("GET", "/v1/access-tokens", Role.ADMIN),
        ("POST", "/v1/access-tokens", Role.ADMIN),
        ("POST", "/v1/access-tokens/x/revoke", Role.ADMIN),
        ("POST", "/v1/agents/x/audit/verify", Role.ADMIN),
        ("POST", "/v1/agents/x/audit/accept", Role.ADMIN),
        ("GET", "/v1/operator-certificates", Role.ADMIN),
        ("POST", "/v1/operator-certificates/x/revoke", Role.ADMIN),
        ("GET", "/v1/ids", Role.VIEWER),
        ("GET", "/metrics", Role.VIEWER),
        ("GET", "/v1/servers", Role.VIEWER),
        ("GET", "/v1/me", Role.VIEWER),
        ("GET", "/v1/audit-log", Role.ADMIN),
    ],
)
def test_route_needs_a_credential_and_its_role(api: RunningApi, method: str, path: str, role: Role) -> None:
    assert_problem(api.http.request(method, path), 401, "missing_credential")
    for other in Role:
        answer = api.http.request(method, path, headers=api.as_(other))
        assert (answer.status_code == 403) is not other.includes(role), other


WITHOUT_CREDENTIAL = {("GET", "/healthz"), ("GET", "/readyz")}


def test_every_route_is_in_that_table(api: RunningApi) -> None:
    paths = api.http.get("/v1/openapi.json").json()["paths"]
    listed = test_route_needs_a_credential_and_its_role.pytestmark[0].args[1]  # type: ignore[attr-defined]
    documented = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    tried = {(method, path.partition("?")[0]) for method, path, _ in listed} | WITHOUT_CREDENTIAL
    assert {(method, re.sub("{.*?}", "x", path)) for method, path in documented} == tried


def test_credential_that_is_not_valid_is_refused(api: RunningApi) -> None:
    valid = api.as_(Role.VIEWER)
    (token,) = api.tokens.all()
    assert_problem(api.http.get("/v1/me", headers={"Authorization": "Bearer acm_x"}), 401, "unknown_credential")
    assert_problem(api.http.get("/v1/me", headers={"Authorization": "Basic eDp4"}), 401, "missing_credential")
    assert api.http.get("/v1/me", headers=valid).status_code == 200
    api.clock.turn(86400)
    assert_problem(api.http.get("/v1/me", headers=valid), 401, "credential_expired")
    api.tokens.revoke(token.id)
    refused = api.http.get("/v1/me", headers=valid)
    assert_problem(refused, 401, "credential_revoked")
    assert refused.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not_json"),
        (b'{"type": "restart-agent", "all": true, "all": true}', 400, "duplicate_key"),
        (b"[]", 400, "not_a_json_object"),
        (b'{"type": "restart-agent", "everyone": true}', 400, "unknown_member"),
        (b'{"type": "restart-agent", "all": "true"}', 400, "invalid_member"),
        (b'{"all": true}', 400, "invalid_member"),
        (b'{"type": "restart-agent", "all": true, "expires_in_s": 0}', 400, "invalid_member"),
        (b'{"type": "restart-agent"}', 400, "ambiguous_target"),
        (b'{"type": "restart-agent", "agents": ["mail-01"]}', 404, "unknown_agent"),
        (b'{"type": "restart-agent", "agents": ["web-01"], "parameters": {"x": 1}}', 400, "unknown_parameter"),
        (b" " * 600_000, 413, "body_too_long"),
    ],
)
def test_body_that_is_not_a_request_is_a_problem(api: RunningApi, body: bytes, status: int, code: str) -> None:
    answer = api.http.post("/v1/commands", content=body, headers=api.as_(Role.OPERATOR))
    assert_problem(answer, status, code)
    assert get(api, "/v1/commands").json()["items"] == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/commands?stat=queued", 400, "unknown_parameter"),
        ("/v1/commands?agent=web-01&agent=web-02", 400, "repeated_parameter"),
        ("/v1/commands?state=done", 400, "invalid_request"),
        ("/v1/commands?limit=0", 400, "invalid_request"),
        ("/v1/commands?cursor=x", 400, "invalid_cursor"),
        ("/v1/commands?since=yesterday", 400, "invalid_request"),
        ("/v1/commands?agent=mail-01", 404, "unknown_agent"),
        ("/v1/commands?operation=x", 404, "unknown_operation"),
        ("/v1/commands/none", 404, "unknown_command"),
        ("/v1/commands/none/timeline", 404, "unknown_command"),
        ("/v1/commands/a%00b", 400, "control_character"),
        ("/v1/agents?group=No%20Body", 400, "invalid_name"),
        ("/v1/agents/mail-01", 404, "unknown_agent"),
        ("/v1/operations/none", 404, "unknown_operation"),
        ("/v1/nothing", 404, "no_such_route"),
    ],
)
def test_question_without_an_answer_is_a_problem(api: RunningApi, path: str, status: int, code: str) -> None:
    assert_problem(get(api, path), status, code)


def test_ledger_that_cannot_be_used_is_a_problem_without_its_place(tmp_path: Path, clock: TurnedClock) -> None:
    with (
        open_database(f"sqlite:///{tmp_path}/ledger.db") as database,
        running_api(with_agents(Ledger(database, now=clock.now)), clock) as api,
    ):
        headers = api.as_(Role.VIEWER)
        with database.transaction() as connection:
            connection.execute(sa.text("ALTER TABLE commands RENAME TO away"))
        answer = api.http.get("/v1/commands", headers=headers)
    assert_problem(answer, 503, "database_failed")
    assert str(tmp_path) not in answer.text


def test_method_that_a_route_does_not_have_is_a_problem(api: RunningApi) -> None:
    assert_problem(api.http.delete("/v1/commands", headers=api.as_(Role.ADMIN)), 405, "method_not_allowed")
