"""A small OpenID Connect issuer on loopback: a discovery document, keys that rotate, and tokens of any kind."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.access.oidc.settings import OidcSettings
from broker.fleet.models import Role

__all__ = ["AUDIENCE", "Issuer", "running_issuer"]

AUDIENCE = "acm"
_DISCOVERY = "/.well-known/openid-configuration"
_KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}


class Issuer:
    """`keys` are its private keys by id, `documents` what it answers by path; `requests` are the paths asked for."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.documents: dict[str, Any] = {}
        self.keys: dict[str, tuple[str, Any]] = {name: (name, key) for name, key in _KEYS.items()}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
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
        self.documents[_DISCOVERY] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
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
                document = issuer.documents.get(self.path)
                if document is None:
                    self.send_error(404)
                    return
                content = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """Run an issuer for a block, which may stop it itself."""
    issuer = Issuer()
    thread = threading.Thread(target=issuer.serve)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.stop()
        thread.join()
