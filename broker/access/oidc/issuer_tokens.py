"""The tokens of an issuer: each one is verified, and its claims say whose it is and what that principal may do."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jwt

from broker.access.grants import LONGEST_PRINCIPAL, Credential, InvalidCredential
from broker.access.oidc.issuer_keys import IssuerKeys
from broker.access.oidc.settings import Claim, OidcSettings
from broker.fleet.models import Principal, Role

__all__ = [
    "IssuerTokens",
]


_PREFIX = "oidc:"  # of the principal's name: neither access tokens nor certificates have such names
_LEEWAY_S = 30  # how far the issuer's clock may be off
_LATEST = 253402300799  # the year 9999: what a datetime can have
_REQUIRED = ["exp", "iss", "aud", "sub"]


class IssuerTokens:
    """The tokens of the issuer in the settings; `monotonic` is a clock in seconds."""

    def __init__(self, settings: OidcSettings, monotonic: Callable[[], float]) -> None:
        self._settings = settings
        self._keys = IssuerKeys(settings.issuer, monotonic)

    def credential_of(self, text: str) -> Credential:
        """Return the principal of the bearer of this token. Raises InvalidCredential, and IssuerUnavailable."""
        claims = self._claims(text)
        name = _PREFIX + claims["sub"]
        if len(name) > LONGEST_PRINCIPAL or not name.isprintable():
            raise InvalidCredential(
                f"The subject (`sub`) of the token must be printable, and at most {LONGEST_PRINCIPAL - len(_PREFIX)} "
                "characters long.",
                code="unusable_subject",
            )
        groups = self._settings.groups_claim
        within = None if groups is None else frozenset(_values(claims, groups))
        principal = Principal(name, self._role(claims), within)
        expires_at = datetime.fromtimestamp(min(int(claims["exp"]), _LATEST), UTC)
        return Credential(principal, hashlib.sha256(text.encode()).hexdigest(), expires_at)

    def is_valid(self, credential: Credential) -> bool:
        """Whether a credential is of an issuer's token that has not expired."""
        return credential.expires_at is not None and datetime.now(UTC) < credential.expires_at

    def _claims(self, text: str) -> dict[str, Any]:
        """Return what the issuer has signed for us, and is valid now."""
        try:
            key_id = jwt.get_unverified_header(text).get("kid")
            key = self._keys.key(key_id) if isinstance(key_id, str) else None
            if key is None:
                raise InvalidCredential(
                    "The token names no key (`kid`) of the issuer: is it of another one?", code="untrusted_token"
                )
            return jwt.decode(
                text,
                key.key,
                algorithms=[key.algorithm_name],  # the key's, never the token's
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_S,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as error:
            raise InvalidCredential(
                "The token has expired: get a new one from the issuer.", code="credential_expired"
            ) from error
        except jwt.PyJWTError as error:
            raise InvalidCredential(f"The token is not valid here: {error}.", code="untrusted_token") from error

    def _role(self, claims: dict[str, Any]) -> Role:
        settings = self._settings
        roles = [settings.roles[value] for value in _values(claims, settings.role_claim) if value in settings.roles]
        if not roles:
            raise InvalidCredential(
                "The token has none of the roles of this API: its configuration lists them in [api_oidc.roles].",
                code="no_role",
            )
        return max(roles, key=list(Role).index)


def _values(claims: dict[str, Any], claim: Claim) -> list[str]:
    """Return the texts of a claim, which is one text or a list; none if it is missing, or anything else."""
    found: Any = claims
    for name in (claim,) if isinstance(claim, str) else claim:
        found = found.get(name) if isinstance(found, dict) else None
    listed = found if isinstance(found, list) else [found]
    return [value for value in listed if isinstance(value, str)]
