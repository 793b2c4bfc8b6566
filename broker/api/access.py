"""Who asks: authenticates each request, limits its rate, and compares the principal's role with the route's."""

from collections.abc import Callable, Collection
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from broker.access.authentication import Authentication
from broker.access.grants import Credential, InvalidCredential
from broker.api.problems import Forbidden
from broker.api.rate_limit import RateLimit
from broker.fleet.models import Role
from broker.web.connections import CLIENT_CERTIFICATE

__all__ = [
    "Access",
]


_BEARER = HTTPBearer(
    scheme_name="accessToken",
    description="An access token, made by `acm api token create`, or a token of the issuer that the API trusts.",
    auto_error=False,
)
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


class Access:
    """Decides whether a request is allowed. `refusals` limits failed attempts of each address."""

    def __init__(self, authentication: Authentication, rates: RateLimit, refusals: RateLimit) -> None:
        self._authentication = authentication
        self._rates = rates
        self._refusals = refusals

    def requires(self, role: Role, *, everywhere: bool = False) -> Callable[..., Credential]:
        """Return the dependency of a route that returns the credential of a principal who has this role.

        `everywhere`: what the route shows or changes is not that of some agents, so it is for principals without
        groups. It raises InvalidCredential, RateLimited and Forbidden.
        """

        def credential(request: Request, bearer: _Bearer) -> Credential:
            found = self.authenticated(request, bearer.credentials if bearer else None)
            self.admit(found, role, everywhere=everywhere)
            return found

        return credential

    def admit(self, who: Credential, role: Role, *, everywhere: bool = False) -> None:
        """Count a request of a principal, and compare its role. Raises RateLimited and Forbidden."""
        principal = who.principal
        self._rates.take(principal.name)
        if not principal.role.includes(role):
            raise Forbidden(
                f"{principal.name} is {principal.role}; this needs the role {role}: use a credential "
                "of that role, such as an access token of `acm api token create`."
            )
        if everywhere and principal.groups is not None:
            raise Forbidden(
                f"{principal.name} is for the agents of some groups, and this is about the whole fleet: use "
                "an access token without groups."
            )

    def valid_among(self, credentials: Collection[Credential]) -> set[Credential]:
        """Return those of these credentials that are valid now; for a request that lasts. Raises LedgerError."""
        return self._authentication.valid_among(credentials)

    def authenticated(self, request: Request, bearer: str | None) -> Credential:
        """Return the credential of a token, or else of the connection's certificate. Raises InvalidCredential.

        Failed attempts of each address are limited: raises RateLimited.
        """
        certificate = getattr(request.state, CLIENT_CERTIFICATE, None)
        try:
            return self._authentication.credential_of(bearer, certificate)
        except InvalidCredential:
            self._refusals.take(request.client.host if request.client else "")
            raise

    def count_attempt(self, request: Request) -> None:
        """Count an attempt to log in that costs a request to the issuer, as a failed one. Raises RateLimited."""
        self._refusals.take(request.client.host if request.client else "")

    def of_session(self, secret: str) -> Credential:
        """Return the credential of a session of the page. Raises InvalidCredential."""
        return self._authentication.credential_of_session(secret)
