"""Logging in to the page at an issuer that really runs: who is let in, and what is refused with which reason."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.app.factories import open_database
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, running_api, with_agents
from tests.support.fakes.clock import TurnedClock
from tests.support.issuer import CLIENT, Issuer, running_issuer
from tests.support.log_ins import api_with_issuer

HOUR_S = 3600


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer("localhost") as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        yield with_agents(Ledger(database, now=clock.now))


@pytest.fixture
def api(issuer: Issuer, ledger: Ledger, clock: TurnedClock) -> Iterator[RunningApi]:
    with api_with_issuer(issuer, ledger, clock) as running:
        yield running


def at_issuer(http: httpx.Client, target: str = "/agents") -> httpx.Response:
    """Begin a log-in, and return where the issuer sends the browser back to."""
    begun = http.get("/login/issuer", params={"next": target})
    assert begun.status_code == 303, begun.text
    cookie = begun.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=lax", "Max-Age=600"} <= set(cookie.split("; "))
    return httpx.get(begun.headers["Location"], trust_env=False)


def log_in(http: httpx.Client, target: str = "/agents") -> httpx.Response:
    return http.get(at_issuer(http, target).headers["Location"])


def test_who_logs_in_at_the_issuer_is_the_subject_with_its_role(api: RunningApi, issuer: Issuer) -> None:
    assert f'href="{api.url}/login/issuer?next=%2Fagents"' in api.http.get("/login?next=/agents").text
    answer = log_in(api.http)
    assert 'http-equiv="refresh" content="0; url=/agents"' in answer.text
    cookies = answer.headers.get_list("Set-Cookie")
    assert any(it.startswith("acm-session=") and "SameSite=strict" in it for it in cookies)
    assert any(it.startswith('acm-log-in="";') for it in cookies)
    assert "oidc:alice" in api.http.get("/agents").text
    assert [api.http.get(it).status_code for it in ("/send", "/audit-log")] == [200, 403]
    (entry,) = httpx.get(f"{api.url}/v1/audit-log", headers=api.as_(Role.ADMIN)).json()["items"]
    assert (entry["principal"], entry["action"]) == ("oidc:alice", "log in")
    proof = base64.b64decode(issuer.proofs[0].removeprefix("Basic ")).decode()
    assert proof == f"{CLIENT}:s%2Fcr%3At"


def test_client_proves_itself_as_the_issuer_takes_it(issuer: Issuer, ledger: Ledger, clock: TurnedClock) -> None:
    issuer.documents["/.well-known/openid-configuration"]["token_endpoint_auth_methods_supported"] = [
        "client_secret_post"
    ]
    for secret in ("secret", None):
        with api_with_issuer(issuer, ledger, clock, secret=secret) as api:
            assert log_in(api.http).status_code == 200
    assert issuer.proofs == ["secret", ""]


def refused(answer: httpx.Response, status: int, reason: str) -> None:
    assert (answer.status_code, "acm-session=" in str(answer.headers.get_list("Set-Cookie"))) == (status, False)
    assert f'role="alert">{reason}' in answer.text, answer.text


def test_answer_without_a_log_in_of_this_browser_is_refused(api: RunningApi) -> None:
    with httpx.Client(base_url=api.url, trust_env=False) as other:
        back = at_issuer(api.http).headers["Location"]
        refused(other.get(back), 401, "This log-in was not begun in this browser")
        at_issuer(other)
        refused(other.get(back), 401, "The answer of the issuer belongs to another log-in")


def test_answer_counts_once(api: RunningApi) -> None:
    back = at_issuer(api.http).headers["Location"]
    cookie = {"Cookie": f"acm-log-in={api.http.cookies['acm-log-in']}"}
    assert api.http.get(back).status_code == 200
    refused(api.http.get(back), 401, "This log-in was not begun in this browser")
    stolen = httpx.get(back, headers=cookie, trust_env=False)
    refused(stolen, 401, "The issuer has not taken the code of this log-in: invalid_grant.")


def test_log_in_that_took_too_long_is_refused(api: RunningApi, clock: TurnedClock) -> None:
    back = at_issuer(api.http).headers["Location"]
    clock.turn(601)
    refused(api.http.get(back), 401, "This log-in was begun more than 10 minutes ago")


@pytest.mark.parametrize(
    ("sent_back", "reason"),
    [
        ({"state": None}, "The answer of the issuer belongs to another log-in"),
        ({"state": "x"}, "The answer of the issuer belongs to another log-in"),
        ({"iss": "https://other.example.org"}, "The answer is of the issuer https://other.example.org"),
        ({"iss": None}, "The answer is of the issuer without a name"),
        ({"code": "x"}, "The issuer has not taken the code of this log-in: invalid_grant."),
        ({"code": None, "error": "access_denied"}, "The issuer has refused the log-in: access_denied."),
    ],
)
def test_answer_that_is_mixed_up_is_refused(
    api: RunningApi, issuer: Issuer, sent_back: dict[str, str | None], reason: str
) -> None:
    issuer.documents["/.well-known/openid-configuration"]["authorization_response_iss_parameter_supported"] = True
    issuer.sent_back = sent_back
    refused(log_in(api.http), 401, reason)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "x"}, "The token of the issuer belongs to another log-in"),
        ({"nonce": None}, "The token is not valid here"),
        ({"iss": "https://other.example.org"}, "The token is not valid here"),
        ({"aud": "acm"}, "The token is not valid here"),
        ({"azp": "other"}, "The token of the issuer is for another client."),
        ({"exp": int(datetime.now(UTC).timestamp()) - HOUR_S}, "The token has expired"),
        ({"roles": ["other"]}, "The token has none of the roles of this API"),
    ],
)
def test_token_that_is_not_for_this_log_in_is_refused(
    api: RunningApi, issuer: Issuer, claims: dict[str, Any], reason: str
) -> None:
    issuer.claims_of_log_in = claims
    refused(log_in(api.http), 401, reason)


def test_issuer_that_is_away_is_named(api: RunningApi, issuer: Issuer, clock: TurnedClock) -> None:
    discovered = issuer.documents["/.well-known/openid-configuration"]
    unsafe = dict(discovered, authorization_endpoint="http://id.example.org/authorize")
    for document, reason in ((None, "The keys of the issuer"), (unsafe, "The issuer http://localhost:")):
        issuer.documents["/.well-known/openid-configuration"] = document
        clock.turn(31)
        refused(api.http.get("/login/issuer"), 503, reason)


def test_log_in_leads_to_no_other_site(api: RunningApi) -> None:
    for target in ("https://evil.example/", "//evil.example"):
        assert 'url=/"' in log_in(api.http, target).text


def test_attempts_are_limited(api: RunningApi) -> None:
    statuses = [api.http.get("/login/callback").status_code for _ in range(21)]
    assert statuses == [401] * 20 + [429]


def test_session_lasts_for_an_hour_at_least(api: RunningApi, clock: TurnedClock) -> None:
    """The issuer's token is valid for a minute."""
    log_in(api.http)
    session = next(it for it in api.http.cookies.jar if it.name == "acm-session")
    assert session.value
    with api.ledger.database.reading() as connection:
        (end,) = connection.exec_driver_sql("SELECT credential_expires_at FROM page_sessions").one()
    left_s = end - datetime.now(UTC).timestamp()
    assert HOUR_S - 60 < left_s <= HOUR_S


def test_page_without_an_issuer_offers_none(ledger: Ledger, clock: TurnedClock) -> None:
    with running_api(ledger, clock) as api:
        assert "/login/issuer" not in api.http.get("/login").text
        assert api.http.get("/login/issuer").status_code == 404
