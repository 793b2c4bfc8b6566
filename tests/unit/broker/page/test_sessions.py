"""Who is logged in at the page: cookies, their ends, and forms of other sites."""

import httpx
import pytest

from broker.access.access_tokens import AccessTokenStore
from broker.access.sessions import LONGEST_SESSION
from broker.fleet.models import Role
from tests.support.api import RunningApi
from tests.support.page import visitor


def origin(api: RunningApi) -> dict[str, str]:
    return {"Origin": api.url}


def text_of(api: RunningApi, role: Role = Role.VIEWER) -> str:
    return api.as_(role)["Authorization"].split()[1]


def test_page_without_a_session_leads_to_the_log_in_and_back(api: RunningApi) -> None:
    answer = api.http.get("/agents?state=online")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2Fagents%3Fstate%3Donline")
    form = {"token": text_of(api), "next": "/agents?state=online"}
    assert api.http.post("/login", data=form, headers=origin(api)).headers["Location"] == "/agents?state=online"


def test_log_in_leads_to_no_other_site(api: RunningApi) -> None:
    for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "x", "/a\r\nX: y"):
        form = {"token": text_of(api), "next": target}
        assert api.http.post("/login", data=form, headers=origin(api)).headers["Location"] == "/", target


def test_cookie_is_strict_and_not_for_scripts(api: RunningApi) -> None:
    answer = api.http.post("/login", data={"token": text_of(api)}, headers=origin(api))
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("acm-session=")
    assert {"HttpOnly", "Path=/", "SameSite=strict", "Max-Age=43200"} <= set(cookie.split("; "))
    assert text_of(api) not in cookie


def test_cookie_of_a_connection_with_tls_is_secure(api: RunningApi) -> None:
    secure = {"Origin": api.url.replace("http://", "https://")}
    cookie = api.http.post("/login", data={"token": text_of(api)}, headers=secure).headers["Set-Cookie"]
    assert cookie.startswith("__Host-acm-session=")
    assert "Secure" in cookie.split("; ")


def test_wrong_token_is_refused_and_attempts_are_limited(api: RunningApi) -> None:
    answers = [api.http.post("/login", data={"token": "acm_no"}, headers=origin(api)) for _ in range(21)]
    assert [it.status_code for it in answers] == [401] * 20 + [429]
    assert "Set-Cookie" not in answers[0].headers


def test_session_ends_with_its_time(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER) as alice:
        api.clock.turn(LONGEST_SESSION.total_seconds() - 1)
        assert alice.get("/").status_code == 200
        api.clock.turn(1)
        assert alice.get("/").status_code == 303


def test_session_ends_with_its_token(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER) as alice:
        (token,) = api.tokens.all()
        AccessTokenStore(api.ledger.database, now=api.clock.now).revoke(token.id)
        assert alice.get("/").status_code == 303


def test_session_ends_with_the_log_out(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER) as alice:
        secret = alice.http.cookies["acm-session"]
        assert alice.post("/logout", {"csrf": alice.csrf()}).status_code == 303
        assert api.http.get("/", headers={"Cookie": f"acm-session={secret}"}).status_code == 303


def test_session_ends_with_the_next_log_in_of_the_browser(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER) as alice:
        secret = alice.http.cookies["acm-session"]
        alice.http.post("/login", data={"token": text_of(api)}, headers=origin(api))
        assert alice.get("/").status_code == 200
        assert api.http.get("/", headers={"Cookie": f"acm-session={secret}"}).status_code == 303


def test_page_says_when_to_try_again(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER) as alice:
        answers = [alice.get("/ids/x") for _ in range(230)]
        refused = next(it for it in answers if it.status_code == 429)
        assert refused.headers["Retry-After"] == "1"


def test_log_in_is_in_the_audit_log(api: RunningApi) -> None:
    with visitor(api, Role.VIEWER, name="vera"):
        (entry,) = api.http.get("/v1/audit-log", headers=api.as_(Role.ADMIN)).json()["items"]
    assert (entry["principal"], entry["action"]) == ("vera", "log in")


def test_session_is_none_at_the_api(api: RunningApi) -> None:
    """The API has no cookies, so no page of another site can use it."""
    with visitor(api, Role.ADMIN) as alice:
        assert alice.get("/v1/me").status_code == 401


FOREIGN: tuple[dict[str, str], ...] = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {},
)


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_form_of_another_site_is_refused(api: RunningApi, path: str) -> None:
    with visitor(api, Role.ADMIN) as alice:
        form = {"csrf": alice.csrf(), "token": text_of(api)}
        for headers in FOREIGN:
            assert alice.http.post(path, data=form, headers=headers).status_code == 403, headers
        assert alice.get("/").status_code == 200


def test_form_without_the_token_of_its_session_is_refused(api: RunningApi) -> None:
    with visitor(api, Role.ADMIN) as alice, visitor(api, Role.VIEWER) as other:
        for token in ("", "0" * 64, "ä", other.csrf()):
            assert alice.post("/logout", {"csrf": token}).status_code == 403
        assert alice.get("/").status_code == 200


def test_longer_form_is_refused(api: RunningApi) -> None:
    body = "token=" + "x" * 600_000
    assert api.http.post("/login", content=body, headers=origin(api)).status_code == 413


def test_link_of_another_site_loads_the_page_again(api: RunningApi) -> None:
    answer = api.http.get('/agents?name="><x', headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0; url=/agents?name=%22%3E%3Cx"' in answer.text
    assert "Set-Cookie" not in answer.headers


def test_every_answer_forbids_scripts_and_frames_of_others(api: RunningApi) -> None:
    style = httpx.URL(api.url + api.http.get("/login").text.split('rel="stylesheet" href="')[1].split('"')[0])
    for path in ("/login", "/", "/agents", style.path, "/static/x/none.js"):
        headers = api.http.get(path).headers
        policy = headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "immutable" in api.http.get(style.path).headers["Cache-Control"]
    assert api.http.get("/agents").headers["Cache-Control"] == "no-store"


def test_form_of_what_is_no_origin_is_refused(api: RunningApi) -> None:
    for of_others in ("http://[", "null", "", "x", f"{api.url}.evil.example"):
        answer = api.http.post("/login", data={"token": text_of(api)}, headers={"Origin": of_others})
        assert (answer.status_code, "another site" in answer.text) == (403, True), of_others
