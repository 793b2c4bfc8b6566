"""A repeated request with the same key does nothing and gets the first answer; what was done is in the audit log."""

import threading
from typing import Any

import pytest

from broker.app.factories import open_database
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, assert_problem, running_api, with_agents
from tests.support.fakes.clock import TurnedClock

SEND = {"type": "restart-agent", "agents": ["web-01"]}


def post(api: RunningApi, path: str, key: str, body: Any = None, name: str | None = None) -> Any:
    headers = api.as_(Role.OPERATOR, name=name) | {"Idempotency-Key": key}
    return api.http.post(path, json=body, headers=headers)


def commands(api: RunningApi) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.http.get("/v1/commands", headers=api.as_(Role.VIEWER)).json()["items"]
    return items


@pytest.mark.parametrize("body", [SEND, {"type": "restart-agent", "all": True}])
def test_repeated_request_gets_the_first_answer(api: RunningApi, body: dict[str, Any]) -> None:
    first = post(api, "/v1/commands", "k", body)
    api.ledger.claim_due(10)
    again = post(api, "/v1/commands", "k", body)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    assert len(commands(api)) == (1 if body is SEND else 3)


def test_repeated_cancel_gets_the_first_answer(api: RunningApi) -> None:
    command = post(api, "/v1/commands", "k", SEND).json()["command"]["id"]
    first = post(api, f"/v1/commands/{command}/cancel", "c")
    assert post(api, f"/v1/commands/{command}/cancel", "c").content == first.content
    assert post(api, f"/v1/commands/{command}/cancel", "d").status_code == 409


def test_repeat_after_the_end_of_the_api_gets_the_first_answer(ledger_url: str, clock: TurnedClock) -> None:
    with open_database(ledger_url) as database:
        ledger = with_agents(Ledger(database, now=clock.now))
        with running_api(ledger, clock) as before:
            headers = before.as_(Role.OPERATOR) | {"Idempotency-Key": "k"}
            first = before.http.post("/v1/commands", json=SEND, headers=headers)
    with open_database(ledger_url) as database, running_api(Ledger(database, now=clock.now), clock) as after:
        again = after.http.post("/v1/commands", json=SEND, headers=headers)
        assert again.content == first.content
        assert len(commands(after)) == 1


def test_answer_is_not_for_a_credential_of_its_principal_for_other_groups(api: RunningApi) -> None:
    asked = {"json": {"type": "restart-agent", "agents": ["db-01"]}}
    of_fleet, of_edge = api.as_(Role.OPERATOR, name="alice"), api.as_(Role.OPERATOR, "edge", name="alice")
    api.http.post("/v1/commands", headers=of_fleet | {"Idempotency-Key": "k"}, **asked)
    refused = api.http.post("/v1/commands", headers=of_edge | {"Idempotency-Key": "k"}, **asked)
    assert_problem(refused, 422, "idempotency_key_reused")


def test_key_is_of_one_principal_and_one_request(api: RunningApi) -> None:
    first = post(api, "/v1/commands", "k", SEND)
    other = post(api, "/v1/commands", "k", SEND, name="bob")
    assert other.json()["command"]["id"] != first.json()["command"]["id"]
    reused = post(api, "/v1/commands", "k", SEND | {"timeout_s": 5})
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


def test_failed_request_is_not_remembered(api: RunningApi) -> None:
    body = {"type": "restart-agent", "agents": ["new-01"]}
    assert post(api, "/v1/commands", "k", body).status_code == 404
    api.ledger.groups.add("edge", ["new-01"])
    assert post(api, "/v1/commands", "k", body | {"allow_unknown": True}).status_code == 201


def test_key_is_forgotten_after_a_day(api: RunningApi) -> None:
    first = post(api, "/v1/commands", "k", SEND, name="carol").json()
    api.clock.turn(86300)
    assert post(api, "/v1/commands", "k", SEND, name="carol").json() == first
    api._headers.clear()
    api.clock.turn(200)
    assert post(api, "/v1/commands", "k", SEND, name="carol").json() != first


def test_requests_at_once_with_one_key_are_done_once(api: RunningApi) -> None:
    api.as_(Role.OPERATOR)
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(post(api, "/v1/commands", "k", SEND).content)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(commands(api)) == 1


@pytest.mark.parametrize("key", ["", "a b", "k" * 256])
def test_key_that_is_none_is_refused(api: RunningApi, key: str) -> None:
    assert post(api, "/v1/commands", key, SEND).status_code == 400
    assert commands(api) == []


def test_longest_type_and_target_are_logged(api: RunningApi) -> None:
    body = {"type": "t" * 128, "agents": [f"new-{number:04d}" for number in range(1500)], "allow_unknown": True}
    assert post(api, "/v1/commands", "k", body).status_code == 201
    (entry,) = api.http.get("/v1/audit-log", headers=api.as_(Role.ADMIN)).json()["items"]
    assert entry["action"] == f"send {'t' * 128}"
    assert entry["target"].startswith("new-0000,new-0001,")


def test_audit_log_has_who_did_what_once(api: RunningApi) -> None:
    sent = post(api, "/v1/commands", "k", SEND).json()["command"]["id"]
    post(api, "/v1/commands", "k", SEND)
    post(api, f"/v1/commands/{sent}/abandon", "a")
    post(api, f"/v1/commands/{sent}/abandon", "b")
    operation = post(api, "/v1/commands", "o", {"type": "start-agent", "group": "edge"}, "bob").json()["operation"]
    entries = api.http.get("/v1/audit-log", headers=api.as_(Role.ADMIN), params={"limit": 2}).json()
    rest = api.http.get("/v1/audit-log", headers=api.as_(Role.ADMIN), params={"cursor": entries["next"]}).json()
    shown = [(it["principal"], it["action"], it["target"], it["subject"]) for it in entries["items"] + rest["items"]]
    assert sorted(shown) == sorted(
        [
            ("operator", "send restart-agent", "web-01", sent),
            ("operator", "abandon", sent, sent),
            ("bob", "send start-agent", "group edge", operation["id"]),
        ]
    )
    assert {it["credential"] for it in entries["items"]} <= {token.id for token in api.tokens.all()}
