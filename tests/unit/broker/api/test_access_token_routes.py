"""Access tokens that are made and revoked by the API: never with more rights than their creator has."""

from typing import Any

import pytest

from broker.fleet.models import Role
from tests.support.api import RunningApi, assert_problem

TOKENS = "/v1/access-tokens"


def create(api: RunningApi, who: dict[str, str], key: str = "", **members: Any) -> Any:
    body = {"principal": "carol", "role": "viewer", **members}
    return api.http.post(TOKENS, json=body, headers=who | ({"Idempotency-Key": key} if key else {}))


def test_token_is_created_used_listed_and_revoked(api: RunningApi) -> None:
    admin = api.as_(Role.ADMIN)
    made = create(api, admin, groups=["edge"], ttl_s=60)
    assert made.status_code == 201
    created = made.json()
    carol = {"Authorization": f"Bearer {created.pop('token')}"}
    assert (created["principal"], created["role"], created["groups"]) == ("carol", "viewer", ["edge"])
    assert created["created_by"] == "admin"
    assert api.http.get("/v1/me", headers=carol).json() == {"name": "carol", "role": "viewer", "groups": ["edge"]}
    page = api.http.get(TOKENS, headers=admin, params={"limit": 1}).json()
    rest = api.http.get(TOKENS, headers=admin, params={"limit": 1, "cursor": page["next"]}).json()
    assert {it["principal"] for it in page["items"] + rest["items"]} == {"carol", "admin"}
    revoked = api.http.post(f"{TOKENS}/{created['id']}/revoke", headers=admin).json()
    assert revoked["revoked_at"] is not None
    assert_problem(api.http.get("/v1/me", headers=carol), 401, "credential_revoked")
    assert_problem(api.http.post(f"{TOKENS}/{created['id']}/revoke", headers=admin), 404, "unknown_access_token")
    log = api.http.get("/v1/audit-log", headers=admin).json()["items"]
    assert sorted((it["action"], it["target"], it["subject"]) for it in log) == [
        ("create access token", "carol as viewer for edge", created["id"]),
        ("revoke access token", created["id"], created["id"]),
    ]


def test_repeated_request_gets_the_same_token(api: RunningApi) -> None:
    first, again = (create(api, api.as_(Role.ADMIN), key="k") for _ in range(2))
    assert again.json() == first.json()
    assert len(api.http.get(TOKENS, headers=api.as_(Role.ADMIN)).json()["items"]) == 2


def test_admin_of_groups_makes_and_sees_only_tokens_for_some_of_them(api: RunningApi) -> None:
    edge = api.as_(Role.ADMIN, "edge", "core", name="eve")
    everywhere = create(api, api.as_(Role.ADMIN), principal="dora").json()["id"]
    assert create(api, edge, groups=["edge"], role="admin").status_code == 201
    for members in ({}, {"groups": ["other"]}, {"groups": ["edge", "other"]}):
        assert_problem(create(api, edge, **members), 403, "forbidden")
    assert_problem(create(api, edge, principal="dora", groups=["edge"]), 403, "name_of_another")
    seen = api.http.get(TOKENS, headers=edge).json()["items"]
    assert {it["principal"] for it in seen} == {"carol", "eve"}
    assert_problem(api.http.post(f"{TOKENS}/{everywhere}/revoke", headers=edge), 404, "unknown_access_token")


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"principal": "No Name"}, "invalid_name"),
        ({"groups": ["No Group"]}, "invalid_name"),
        ({"groups": []}, "invalid_member"),
        ({"role": "root"}, "invalid_member"),
        ({"ttl_s": 367 * 86400}, "invalid_member"),
    ],
)
def test_token_that_cannot_be_is_refused(api: RunningApi, members: dict[str, Any], code: str) -> None:
    assert_problem(create(api, api.as_(Role.ADMIN), **members), 400, code)
