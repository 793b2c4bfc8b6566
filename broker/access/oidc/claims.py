"""The claims of an issuer's tokens: verified, and as the principal that they are of."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jwt

from broker.access.grants import LONGEST_PRINCIPAL, InvalidCredential
from broker.access.oidc.issuer_keys import IssuerKeys
from broker.access.oidc.settings import Claim, OidcSettings
from broker.fleet.models import Principal, Role

__all__ = [
    "end_of",
    "principal_in",
    "verified_claims",
]


_PREFIX = "oidc:"  # of the principal's name: neither access tokens nor certificates have such names
_LEEWAY_S = 30  # how far the issuer's clock may be off
_LATEST = 253402300799  # the year 9999: what a datetime can have
_REQUIRED = ("exp", "iss", "aud", "sub")


def verified_claims(
    text: str, keys: IssuerKeys, issuer: str, audience: str, *, also_required: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what the issuer has signed for an audience, and is valid now.

    Raises InvalidCredential, and IssuerUnavailable.
    """
    try:
        key_id = jwt.get_unverified_header(text).get("kid")
        key = keys.key(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise InvalidCredential(
                "The token names no key (`kid`) of the issuer: is it of another one?", code="untrusted_token"
            )
        return jwt.decode(
            text,
            key.key,
            algorithms=[key.algorithm_name],  # the key's, never the token's
            audience=audience,
            issuer=issuer,
            leeway=_LEEWAY_S,
            options={"require": [*_REQUIRED, *also_required]},
        )
    except jwt.ExpiredSignatureError as error:
        raise InvalidCredential(
            "The token has expired: get a new one from the issuer.", code="credential_expired"
        ) from error
    except jwt.PyJWTError as error:
        raise InvalidCredential(f"The token is not valid here: {error}.", code="untrusted_token") from error


def end_of(claims: dict[str, Any]) -> datetime:
    """Return until when verified claims are valid."""
    return datetime.fromtimestamp(min(int(claims["exp"]), _LATEST), UTC)


def principal_in(claims: dict[str, Any], settings: OidcSettings) -> Principal:
    """Return the principal that claims are of. Raises InvalidCredential."""
    name = _PREFIX + claims["sub"]
    if len(name) > LONGEST_PRINCIPAL or not name.isprintable():
        raise InvalidCredential(
            f"The subject (`sub`) of the token must be printable, and at most {LONGEST_PRINCIPAL - len(_PREFIX)} "
            "characters long.",
            code="unusable_subject",
        )
    groups = settings.groups_claim
    within = None if groups is None else frozenset(_values(claims, groups))
    return Principal(name, _role(claims, settings), within)


def _role(claims: dict[str, Any], settings: OidcSettings) -> Role:
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
