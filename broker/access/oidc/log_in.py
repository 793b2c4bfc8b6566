"""Logging in by the authorization code flow (OpenID Connect Core 1.0, section 3.1) with PKCE (RFC 7636)."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
import structlog

from broker.access.foreign_log_in import LoggedIn, LogInBegun
from broker.access.grants import Credential, InvalidCredential
from broker.access.oidc.attempts import LogInAttempt
from broker.access.oidc.claims import end_of, principal_in, verified_claims
from broker.access.oidc.documents import FAILURES, Unusable, answer_of, document_in
from broker.access.oidc.issuer_keys import IssuerKeys, IssuerUnavailable
from broker.access.oidc.settings import LogInSettings, OidcSettings, is_safe_url

__all__ = [
    "IssuerLogIn",
]


_LEAST_SESSION = timedelta(hours=1)
_CALLBACK = "/login/callback"
_log = structlog.get_logger("acm.api")


class IssuerLogIn:
    """Log-ins at the issuer in the settings; `now` is the clock of the ledger, `monotonic` one in seconds.

    `secret` is that of a client that has one.
    """

    def __init__(
        self,
        settings: OidcSettings,
        client: LogInSettings,
        secret: str | None,
        keys: IssuerKeys,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._client = client
        self._secret = secret
        self._keys = keys
        self._now = now
        self._monotonic = monotonic

    @property
    def page_url(self) -> str:
        """Where browsers reach the page, without a slash at the end."""
        return self._client.page_url.rstrip("/")

    @property
    def name(self) -> str:
        """The host of the issuer, for people."""
        return urlsplit(self._settings.issuer).netloc

    def begin(self, target: str) -> LogInBegun:
        """Begin a log-in, which leads to a path of the page. Raises IssuerUnavailable."""
        attempt = LogInAttempt.new(target, self._now())
        address = self._endpoint("authorization_endpoint")
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client.client_id,
                "redirect_uri": self.page_url + _CALLBACK,
                "scope": " ".join(self._client.scopes),
                "state": attempt.state,
                "nonce": attempt.nonce,
                "code_challenge": attempt.challenge,
                "code_challenge_method": "S256",
            }
        )
        return LogInBegun(f"{address}{'&' if urlsplit(address).query else '?'}{query}", attempt.kept)

    def finish(self, kept: str | None, answer: Mapping[str, str]) -> LoggedIn:
        """Return who has logged in, by what the browser has kept and the parameters that it comes back with.

        Raises InvalidCredential, and IssuerUnavailable.
        """
        attempt = LogInAttempt.of(kept, self._now())
        self._refuse_foreign(attempt, answer)
        if "code" not in answer:
            reason = f"{answer.get('error', 'it has given none')} {answer.get('error_description', '')}"[:200].strip()
            raise InvalidCredential(f"The issuer has refused the log-in: {reason}.", code="log_in_refused")
        text = self._token(answer["code"], attempt)
        claims = verified_claims(
            text, self._keys, self._settings.issuer, self._client.client_id, also_required=("iat", "nonce")
        )
        if not _is_same(claims["nonce"], attempt.nonce):
            raise InvalidCredential(
                "The token of the issuer belongs to another log-in: begin it again.", code="log_in_mixed_up"
            )
        if claims.get("azp", self._client.client_id) != self._client.client_id:
            raise InvalidCredential("The token of the issuer is for another client.", code="untrusted_token")
        return LoggedIn(self._credential(text, claims), attempt.target)

    def _credential(self, text: str, claims: dict[str, Any]) -> Credential:
        # design.md: "A session that began at an issuer lasts for an hour at least"
        expires_at = max(end_of(claims), datetime.now(UTC) + _LEAST_SESSION)
        principal = principal_in(claims, self._settings)
        return Credential(principal, hashlib.sha256(text.encode()).hexdigest(), expires_at)

    def _refuse_foreign(self, attempt: LogInAttempt, answer: Mapping[str, str]) -> None:
        """Raise InvalidCredential for an answer to another log-in, or of another issuer (RFC 9207)."""
        if not _is_same(answer.get("state"), attempt.state):
            raise InvalidCredential(
                "The answer of the issuer belongs to another log-in: begin it again, in one window at a time.",
                code="log_in_mixed_up",
            )
        is_named = self._keys.discovered().get("authorization_response_iss_parameter_supported") is True
        issuer = answer.get("iss", None if is_named else self._settings.issuer)
        if issuer != self._settings.issuer:
            raise InvalidCredential(
                f"The answer is of the issuer {(issuer or 'without a name')[:200]}, and not of "
                f"{self._settings.issuer}: begin the log-in again.",
                code="other_issuer",
            )

    def _token(self, code: str, attempt: LogInAttempt) -> str:
        """Return the ID token that the issuer gives for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.page_url + _CALLBACK,
            "client_id": self._client.client_id,
            "code_verifier": attempt.verifier,
        }
        address = self._endpoint("token_endpoint")
        try:
            status, content = answer_of("POST", address, self._monotonic, **self._authenticated(form))
            if status >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise Unusable(f"{address} answers with status {status}")
            document = document_in(content)
        except FAILURES as error:
            _log.warning("issuer_unavailable", issuer=self._settings.issuer, reason=str(error) or type(error).__name__)
            raise IssuerUnavailable(
                f"The issuer {self._settings.issuer} does not answer as it should: try again later."
            ) from error
        text = document.get("id_token")
        if status != httpx.codes.OK or not isinstance(text, str):
            reason = str(document.get("error", "it has sent no ID token"))[:80]
            raise InvalidCredential(
                f"The issuer has not taken the code of this log-in: {reason}. Begin it again.", code="log_in_refused"
            )
        return text

    def _authenticated(self, form: dict[str, str]) -> dict[str, Any]:
        """Return the form of a request of the client, as httpx takes it, with the proof that it is this client."""
        if self._secret is None:
            return {"data": form}
        methods = self._keys.discovered().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if isinstance(methods, list) and "client_secret_basic" not in methods:
            return {"data": form | {"client_secret": self._secret}}
        name, secret = quote_plus(self._client.client_id), quote_plus(self._secret)  # RFC 6749 section 2.3.1
        return {"data": form, "auth": (name, secret)}

    def _endpoint(self, name: str) -> str:
        address = self._keys.discovered().get(name)
        if not isinstance(address, str) or not is_safe_url(address.partition("?")[0]):
            raise IssuerUnavailable(
                f"The issuer {self._settings.issuer} has no {name} with https in its discovery document: log in with "
                "a token."
            )
        return address


def _is_same(given: Any, expected: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), expected.encode())
