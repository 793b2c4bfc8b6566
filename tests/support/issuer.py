"""A small OpenID Connect issuer on loopback: a discovery document, keys that rotate, tokens of any kind, and log-ins.

Who comes to log in is alice, and is sent back with a code at once.
"""

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.access.oidc.settings import LogInSettings, OidcSettings
from broker.fleet.models import Role

__all__ = ["AUDIENCE", "CLIENT", "CLIENT_SECRET", "Issuer", "running_issuer"]

AUDIENCE = "acm"
CLIENT, CLIENT_SECRET = "acm-page", "s/cr:t"
_DISCOVERY = "/.well-known/openid-configuration"
_KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}


class Issuer:
    """`keys` are its private keys by id, `documents` what it answers by path; `requests` are the paths asked for.

    Of log-ins, `sent_back` and `claims_of_log_in` replace parameters and claims (None: leaves them out), and `proofs`
    is what clients have proved themselves by.
    """

    def __init__(self, host: str) -> None:
        self.requests: list[str] = []
        self.sent_back: dict[str, str | None] = {}
        self.claims_of_log_in: dict[str, Any] = {}
        self.proofs: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self.documents: dict[str, Any] = {}
        self.keys: dict[str, tuple[str, Any]] = {name: (name, key) for name, key in _KEYS.items()}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self.publish()

    @property
    def settings(self) -> OidcSettings:
        return OidcSettings(
            issuer=self.url,
            audience=AUDIENCE,
            roles={"watchers": Role.VIEWER, "fleet": Role.OPERATOR, "root": Role.ADMIN},
        )

    def publish(self, *more: dict[str, Any]) -> None:
        """Publish its keys, and further entries."""
        keys = [*(self.public(name) for name in self.keys), *more]
        endpoints = {
            "authorization_endpoint": f"{self.url}/authorize?theme=plain",
            "token_endpoint": f"{self.url}/token",
        }
        self.documents[_DISCOVERY] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **endpoints}
        self.documents["/keys"] = {"keys": keys}

    def rotate(self) -> None:
        """Replace the key ES256 by a new one, ES256-2."""
        del self.keys["ES256"]
        self.keys["ES256-2"] = ("ES256", ec.generate_private_key(ec.SECP256R1()))
        self.publish()

    def public(self, key_id: str) -> dict[str, Any]:
        """Return the public part of a key as JWK."""
        algorithm, key = self.keys[key_id]
        entry = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
        return {**entry, "kid": key_id, "use": "sig", "alg": algorithm}

    def token(self, key_id: str = "ES256", **claims: Any) -> str:
        """Return a token for alice, an operator, that is valid for a minute; a claim that is None is left out."""
        algorithm, key = self.keys[key_id]
        given = {**self.claims(), **claims}
        payload = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(payload, key, algorithm, headers={"kid": key_id})

    def claims(self) -> dict[str, Any]:
        """Return the claims of a token for alice."""
        expires = int(datetime.now(UTC).timestamp()) + 60
        return {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": expires, "roles": ["fleet", "other"]}

    def log_in_settings(self, page_url: str) -> LogInSettings:
        """Return the settings of a page at this address, which is a client with a secret."""
        return LogInSettings(client_id=CLIENT, page_url=page_url)

    def authorize(self, query: str) -> str:
        """Return the address to send a browser back to, with a code for alice."""
        asked = dict(parse_qsl(query))
        assert (asked["response_type"], asked["client_id"], asked["theme"]) == ("code", CLIENT, "plain")
        assert (asked["scope"], asked["code_challenge_method"]) == ("openid", "S256")
        code = secrets.token_urlsafe()
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.url, **self.sent_back}
        given = {name: value for name, value in answer.items() if value is not None}
        return f"{asked['redirect_uri']}?{urlencode(given)}"

    def exchange(self, body: str, proof: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the answer to a client that has a code, which is good for once."""
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.proofs.append(proof or form.get("client_secret", ""))
        asked = self._codes.pop(form["code"], {})
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        )
        expected = (asked.get("code_challenge"), asked.get("redirect_uri"), CLIENT, "authorization_code")
        if (challenge, form["redirect_uri"], form["client_id"], form["grant_type"]) != expected:
            return 400, {"error": "invalid_grant"}
        now = int(datetime.now(UTC).timestamp())
        claims = {"aud": CLIENT, "nonce": asked["nonce"], "iat": now, **self.claims_of_log_in}
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": self.token(**claims)}

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        self._server.serve_forever(0.02)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests.append(self.path)
                if self.path.startswith("/authorize"):
                    self.send_response(302)
                    self.send_header("Location", issuer.authorize(urlsplit(self.path).query))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                document = issuer.documents.get(self.path)
                if document is None:
                    self.send_error(404)
                    return
                self._answer(200, document if isinstance(document, bytes) else json.dumps(document).encode())

            def do_POST(self) -> None:
                issuer.requests.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = issuer.exchange(body, self.headers.get("Authorization", ""))
                self._answer(status, json.dumps(answer).encode())

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler


@contextmanager
def running_issuer(host: str = "127.0.0.1") -> Iterator[Issuer]:
    """Run an issuer for a block, which may stop it itself; `host` is its name, of this machine."""
    issuer = Issuer(host)
    thread = threading.Thread(target=issuer.serve)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.stop()
        thread.join()
