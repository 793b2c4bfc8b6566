"""The tokens of an issuer: each one is verified, and its claims say whose it is and what that principal may do."""

import hashlib
from datetime import UTC, datetime

from broker.access.grants import Credential
from broker.access.oidc.claims import end_of, principal_in, verified_claims
from broker.access.oidc.issuer_keys import IssuerKeys
from broker.access.oidc.settings import OidcSettings

__all__ = [
    "IssuerTokens",
]


class IssuerTokens:
    """The tokens of the issuer in the settings, whose keys are `keys`."""

    def __init__(self, settings: OidcSettings, keys: IssuerKeys) -> None:
        self._settings = settings
        self._keys = keys

    def credential_of(self, text: str) -> Credential:
        """Return the principal of the bearer of this token. Raises InvalidCredential, and IssuerUnavailable."""
        claims = verified_claims(text, self._keys, self._settings.issuer, self._settings.audience)
        principal = principal_in(claims, self._settings)
        return Credential(principal, hashlib.sha256(text.encode()).hexdigest(), end_of(claims))

    def is_valid(self, credential: Credential) -> bool:
        """Whether a credential is of a token, or a session, of the issuer that has not expired."""
        return credential.expires_at is not None and datetime.now(UTC) < credential.expires_at
