"""Tokens of an issuer that really runs: which are taken, whose they are, and how its keys are read."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.access.grants import InvalidCredential
from broker.access.oidc.issuer_keys import IssuerKeys, IssuerUnavailable
from broker.access.oidc.issuer_tokens import IssuerTokens
from broker.access.oidc.settings import OidcSettings
from broker.app.factories import open_database
from broker.fleet.models import Principal, Role
from broker.ledger.ledger import Ledger
from tests.support.api import running_api, with_agents
from tests.support.brokers import free_port
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.issuer import Issuer, running_issuer

SHARED = b"s" * 32
READING = ["/.well-known/openid-configuration", "/keys"]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


def tokens_of(settings: OidcSettings, clock: TurnedClock) -> IssuerTokens:
    return IssuerTokens(settings, IssuerKeys(settings.issuer, clock.monotonic))


@pytest.fixture
def tokens(issuer: Issuer, clock: TurnedClock) -> IssuerTokens:
    return tokens_of(issuer.settings, clock)


def seconds_from_now(seconds: int) -> int:
    return int(datetime.now(UTC).timestamp()) + seconds


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_bearer_is_the_subject_with_the_highest_role(issuer: Issuer, tokens: IssuerTokens, algorithm: str) -> None:
    text = issuer.token(algorithm, roles=["watchers", "root", "fleet"])
    credential = tokens.credential_of(text)
    assert credential.principal == Principal("oidc:alice", Role.ADMIN)
    assert credential.id == hashlib.sha256(text.encode()).hexdigest()
    assert tokens.is_valid(credential)
    assert not tokens.is_valid(replace(credential, expires_at=datetime.now(UTC)))


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://other.example.org"}, "untrusted_token"),
        ({"iss": None}, "untrusted_token"),
        ({"aud": "other"}, "untrusted_token"),
        ({"aud": None}, "untrusted_token"),
        ({"exp": seconds_from_now(-3600)}, "credential_expired"),
        ({"exp": None}, "untrusted_token"),
        ({"nbf": seconds_from_now(3600)}, "untrusted_token"),
        ({"sub": None}, "untrusted_token"),
        ({"sub": "a" * 60}, "unusable_subject"),
        ({"sub": "a\nb"}, "unusable_subject"),
        ({"roles": []}, "no_role"),
        ({"roles": None}, "no_role"),
        ({"roles": {"root": True}}, "no_role"),
        ({"roles": "admin"}, "no_role"),  # a value, not the role that it leads to
    ],
)
def test_token_whose_claims_are_not_for_us_is_refused(
    issuer: Issuer, tokens: IssuerTokens, claims: dict[str, Any], code: str
) -> None:
    with raises_code(InvalidCredential, code):
        tokens.credential_of(issuer.token(**claims))


def test_clock_of_the_issuer_may_be_off_by_half_a_minute(issuer: Issuer, tokens: IssuerTokens) -> None:
    tokens.credential_of(issuer.token(exp=seconds_from_now(-10), nbf=seconds_from_now(10)))


def test_token_without_a_signature_is_refused(issuer: Issuer, tokens: IssuerTokens) -> None:
    for algorithm in ("none", "None", "NONE"):
        head = encoded({"alg": algorithm, "typ": "JWT", "kid": "ES256"})
        with raises_code(InvalidCredential, "untrusted_token"):
            tokens.credential_of(f"{head}.{encoded(issuer.claims())}.")


def test_public_key_is_not_taken_as_a_shared_secret(issuer: Issuer, tokens: IssuerTokens) -> None:
    public = issuer.keys["RS256"][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': 'RS256'})}.{encoded(issuer.claims())}"
    signature = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    with raises_code(InvalidCredential, "untrusted_token"):
        tokens.credential_of(f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")


def test_key_is_used_with_its_own_algorithm_only(issuer: Issuer, tokens: IssuerTokens) -> None:
    _, key = issuer.keys["RS256"]
    for algorithm in ("RS512", "PS256"):
        text = jwt.encode(issuer.claims(), key, algorithm, headers={"kid": "RS256"})
        with raises_code(InvalidCredential, "untrusted_token"):
            tokens.credential_of(text)


def test_changed_token_is_refused(issuer: Issuer, tokens: IssuerTokens) -> None:
    head, _, signature = issuer.token().split(".")
    with raises_code(InvalidCredential, "untrusted_token"):
        tokens.credential_of(f"{head}.{encoded(issuer.claims() | {'roles': ['root']})}.{signature}")


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é.é.é", "e30.e30.e30"])
def test_what_is_no_token_is_refused(tokens: IssuerTokens, text: str) -> None:
    with raises_code(InvalidCredential, "untrusted_token"):
        tokens.credential_of(text)


def test_secrets_short_keys_and_private_keys_of_the_issuer_are_not_used(issuer: Issuer, tokens: IssuerTokens) -> None:
    short, private = (
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        ec.generate_private_key(ec.SECP256R1()),
    )
    rs256, es256 = jwt.get_algorithm_by_name("RS256"), jwt.get_algorithm_by_name("ES256")
    issuer.publish(
        {**jwt.get_algorithm_by_name("HS256").to_jwk(SHARED, as_dict=True), "kid": "secret"},
        {**rs256.to_jwk(short.public_key(), as_dict=True), "kid": "short"},
        {**es256.to_jwk(private, as_dict=True), "kid": "private"},
        {**issuer.public("ES256"), "kid": "encrypts", "use": "enc"},
        {**issuer.public("ES256"), "kid": "other", "alg": "ES384"},
        {"kid": "broken", "kty": "EC", "crv": "P-256", "x": "?", "y": []},
    )
    with raises_code(InvalidCredential, "untrusted_token"):
        tokens.credential_of(jwt.encode(issuer.claims(), SHARED, "HS256", headers={"kid": "secret"}))
    _, key = issuer.keys["ES256"]
    for key_id in ("short", "private", "encrypts", "other", "broken"):
        text = jwt.encode(issuer.claims(), key, "ES256", headers={"kid": key_id})
        with raises_code(InvalidCredential, "untrusted_token"):
            tokens.credential_of(text)
    tokens.credential_of(issuer.token())


def test_role_and_groups_are_those_of_nested_claims(issuer: Issuer, clock: TurnedClock) -> None:
    settings = msgspec.structs.replace(issuer.settings, role_claim=("realm", "roles"), groups_claim="groups")
    tokens = tokens_of(settings, clock)
    text = issuer.token(realm={"roles": ["watchers"]}, groups=["edge", 7, "core"])
    assert tokens.credential_of(text).principal == Principal("oidc:alice", Role.VIEWER, frozenset({"edge", "core"}))
    without = issuer.token(realm={"roles": "watchers"})
    assert tokens.credential_of(without).principal.groups == frozenset()


def test_keys_are_read_once_an_hour(issuer: Issuer, tokens: IssuerTokens, clock: TurnedClock) -> None:
    for _ in range(3):
        tokens.credential_of(issuer.token())
    assert issuer.requests == READING
    clock.turn(3601)
    tokens.credential_of(issuer.token())
    assert issuer.requests == READING * 2


def test_rotated_key_is_read_when_a_token_names_it_but_not_for_each_unknown_one(
    issuer: Issuer, tokens: IssuerTokens, clock: TurnedClock
) -> None:
    former = issuer.token()
    tokens.credential_of(former)
    issuer.rotate()
    for _ in range(3):
        with raises_code(InvalidCredential, "untrusted_token"):
            tokens.credential_of(issuer.token("ES256-2"))
    assert issuer.requests == READING
    clock.turn(30)
    tokens.credential_of(issuer.token("ES256-2"))
    assert issuer.requests == READING * 2
    with raises_code(InvalidCredential, "untrusted_token"):
        tokens.credential_of(former)


def test_known_keys_go_on_for_a_day_while_the_issuer_is_away(
    issuer: Issuer, tokens: IssuerTokens, clock: TurnedClock
) -> None:
    tokens.credential_of(issuer.token())
    issuer.documents.clear()
    clock.turn(80_000)
    tokens.credential_of(issuer.token())
    issuer.keys["new"] = issuer.keys["ES256"]
    with raises_code(IssuerUnavailable, "issuer_unavailable"):
        tokens.credential_of(issuer.token("new"))
    clock.turn(7_000)
    with raises_code(IssuerUnavailable, "issuer_unavailable"):
        tokens.credential_of(issuer.token())
    issuer.publish()
    clock.turn(30)
    tokens.credential_of(issuer.token())


def filled(document: Any, words: dict[str, str]) -> Any:
    if isinstance(document, bytes):
        return document
    text = json.dumps(document)
    for word, value in words.items():
        text = text.replace(word, value)
    return json.loads(text)


@pytest.mark.parametrize(
    "documents",
    [
        {},
        {READING[0]: b"none"},
        {READING[0]: b"[]"},
        {READING[0]: b" " * 300_000},
        {READING[0]: {"issuer": "https://other.example.org", "jwks_uri": "https://other.example.org/keys"}},
        {READING[0]: {"issuer": "{issuer}", "jwks_uri": "{elsewhere}/keys"}, READING[1]: {"keys": ["{key}"]}},
        {READING[0]: {"issuer": "{issuer}"}},
        {READING[0]: {"issuer": "{issuer}", "jwks_uri": "{issuer}/none"}},
    ],
)
def test_issuer_whose_answers_cannot_be_used_is_unavailable(
    issuer: Issuer, tokens: IssuerTokens, documents: dict[str, Any]
) -> None:
    elsewhere = issuer.url.replace("127.0.0.1", "0.0.0.0")  # which leads there, too, and is another address
    words = {"{issuer}": issuer.url, "{elsewhere}": elsewhere, '"{key}"': json.dumps(issuer.public("ES256"))}
    issuer.documents = {path: filled(it, words) for path, it in documents.items()}
    with raises_code(IssuerUnavailable, "issuer_unavailable"):
        tokens.credential_of(issuer.token())


def test_issuer_that_does_not_answer_is_unavailable(issuer: Issuer, clock: TurnedClock) -> None:
    settings = msgspec.structs.replace(issuer.settings, issuer=f"http://127.0.0.1:{free_port()}")
    with raises_code(IssuerUnavailable, "issuer_unavailable"):
        tokens_of(settings, clock).credential_of(issuer.token())


def test_api_takes_tokens_of_the_issuer_beside_its_own(issuer: Issuer, clock: TurnedClock, tmp_path: Path) -> None:
    foreign = tokens_of(issuer.settings, clock)
    with (
        open_database(f"sqlite:///{tmp_path}/ledger.db") as database,
        running_api(with_agents(Ledger(database, now=clock.now)), clock, foreign=foreign) as api,
    ):

        def me(headers: dict[str, str]) -> Any:
            return api.http.get("/v1/me", headers=headers).json()

        issuer.documents.clear()
        alice = {"Authorization": f"Bearer {issuer.token()}"}
        away = api.http.get("/v1/me", headers=alice)
        assert (away.status_code, away.json()["code"]) == (503, "issuer_unavailable")
        assert "keys of the issuer" in away.json()["detail"]
        issuer.publish()
        clock.turn(30)
        assert me(alice)["name"] == "oidc:alice"
        assert me(api.as_(Role.VIEWER, name="alice"))["name"] == "alice"
        sent = api.http.post("/v1/commands", json={"type": "restart-agent", "agents": ["web-01"]}, headers=alice)
        assert sent.json()["command"]["command"]["origin"] == {"name": "oidc:alice", "module": "api"}
        (logged,) = api.http.get("/v1/audit-log", headers=api.as_(Role.ADMIN)).json()["items"]
        assert logged["principal"] == "oidc:alice"
        expired = {"Authorization": f"Bearer {issuer.token(exp=seconds_from_now(-3600))}"}
        assert me(expired)["code"] == "credential_expired"
