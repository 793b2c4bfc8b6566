"""The public keys of an issuer, from its discovery document (OpenID Connect Discovery 1.0) and its key set (RFC 7517).

They are read when they are needed: at the first token, for a key that is not known, and once an hour. While the issuer
is away, keys that are known are used for a day.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx
import jwt
import structlog

from broker.access.oidc.documents import FAILURES, Unusable, answer_of, document_in
from broker.access.oidc.settings import is_safe_url
from broker.errors import BrokerError

__all__ = [
    "IssuerKeys",
    "IssuerUnavailable",
]


_FRESH_S = 3600.0
_LONGEST_USE_S = 86400.0
_PAUSE_S = 30.0  # between two readings, whatever tokens arrive
_MAX_KEYS = 100
_LEAST_RSA_BITS = 2048
# The algorithm of each kind of key, so that no token chooses one. Keys that are shared secrets are not in it.
_ALGORITHMS: Mapping[tuple[Any, Any], str] = MappingProxyType(
    {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
)
_log = structlog.get_logger("acm.api")


class IssuerUnavailable(BrokerError):
    """The keys of the issuer of tokens cannot be read now."""

    code = "issuer_unavailable"


@dataclass(frozen=True)
class _Known:
    """The keys by their ids, the discovery document, and when they were read."""

    keys: Mapping[str, jwt.PyJWK] = field(default_factory=dict)
    discovered: Mapping[str, Any] = field(default_factory=dict)
    read_at: float = float("-inf")


class IssuerKeys:
    """The keys of one issuer; `monotonic` is a clock in seconds. Used by any thread: one of them reads for all."""

    def __init__(self, issuer: str, monotonic: Callable[[], float]) -> None:
        self._issuer = issuer
        self._monotonic = monotonic
        self._known = _Known()
        self._read_again_at = float("-inf")
        self._is_away = False
        self._reading = threading.Lock()

    def key(self, key_id: str) -> jwt.PyJWK | None:
        """Return the key of this id, with its algorithm; None if the issuer has none. Raises IssuerUnavailable."""
        key = self._with(lambda known: key_id in known.keys).keys.get(key_id)
        if key is None and self._is_away:  # it may have the key
            raise self._unavailable()
        return key

    def discovered(self) -> Mapping[str, Any]:
        """Return the discovery document. Raises IssuerUnavailable."""
        document = self._with(lambda known: bool(known.discovered)).discovered
        if not document:
            raise self._unavailable()
        return document

    def _with(self, has: Callable[["_Known"], bool]) -> "_Known":
        """Return what is known of the issuer, which is read if it is old, or has not what is asked for."""
        known = self._known
        age_s = self._monotonic() - known.read_at
        is_usable = has(known) and age_s <= _LONGEST_USE_S
        if not is_usable or age_s > _FRESH_S:
            # A request for what can be used does not wait for one that reads.
            if self._reading.acquire(blocking=not is_usable):
                try:
                    self._read_if_due(has)
                finally:
                    self._reading.release()
            known = self._known
        return known if self._monotonic() - known.read_at <= _LONGEST_USE_S else _Known()

    def _unavailable(self) -> IssuerUnavailable:
        return IssuerUnavailable(f"The keys of the issuer {self._issuer} cannot be read now: try again later.")

    def _read_if_due(self, has: Callable[["_Known"], bool]) -> None:
        now = self._monotonic()
        is_fresh = now - self._known.read_at <= _FRESH_S
        if now < self._read_again_at or (is_fresh and has(self._known)):  # another thread has read it
            return
        self._read_again_at = now + _PAUSE_S
        try:
            self._known, self._is_away = self._read(now), False
        except FAILURES as error:
            self._is_away = True
            _log.warning("issuer_unavailable", issuer=self._issuer, reason=str(error) or type(error).__name__)

    def _read(self, now: float) -> "_Known":
        discovered = self._document(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if discovered.get("issuer") != self._issuer:
            raise Unusable(f"its discovery document is of another issuer: {str(discovered.get('issuer'))[:80]!r}")
        address = discovered.get("jwks_uri")
        if not isinstance(address, str) or not is_safe_url(address):
            raise Unusable("its discovery document has no URL of keys with https")
        found = self._document(address).get("keys")
        keys = [_usable(entry) for entry in found[:_MAX_KEYS]] if isinstance(found, list) else []
        return _Known({str(key.key_id): key for key in keys if key is not None}, discovered, now)

    def _document(self, url: str) -> dict[str, Any]:
        status, content = answer_of("GET", url, self._monotonic)
        if status != httpx.codes.OK:
            raise Unusable(f"{url} answers with status {status}")
        return document_in(content)


def _usable(entry: Any) -> jwt.PyJWK | None:
    """Return a public key that signs by one of the algorithms, or None."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or "d" in entry:
        return None
    algorithm = _ALGORITHMS.get((entry.get("kty"), entry.get("crv") if entry.get("kty") != "RSA" else None))
    if algorithm is None or entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(entry, algorithm)
    except jwt.PyJWTError:
        return None
    return None if algorithm == "RS256" and key.key.key_size < _LEAST_RSA_BITS else key
