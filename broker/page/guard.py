"""What keeps others out: the cookie of a session, and the checks that a form was sent by a page of ours."""

import hashlib
import hmac

from starlette.requests import Request
from starlette.responses import Response

from broker.access.foreign_log_in import LONGEST_LOG_IN_S
from broker.access.sessions import LONGEST_SESSION
from broker.api.problems import Forbidden

__all__ = [
    "clear_cookie",
    "clear_log_in",
    "csrf_token",
    "is_secure",
    "keep_log_in",
    "kept_log_in",
    "local_path",
    "refuse_foreign",
    "refuse_without_token",
    "secret_in",
    "set_cookie",
]


_COOKIE, _SECURE_COOKIE = "acm-session", "__Host-acm-session"
_LOG_IN, _SECURE_LOG_IN = "acm-log-in", "__Host-acm-log-in"


def secret_in(request: Request) -> str | None:
    """Return the secret of the session that a request has in its cookie; over TLS, only one that was set over TLS."""
    secret = request.cookies.get(_SECURE_COOKIE)
    return secret if secret or request.url.scheme == "https" else request.cookies.get(_COOKIE)


def set_cookie(response: Response, secret: str, *, secure: bool) -> None:
    """Let the browser keep the secret of a session, where no script can read it; `secure`: for TLS alone."""
    response.set_cookie(
        _SECURE_COOKIE if secure else _COOKIE,
        secret,
        max_age=int(LONGEST_SESSION.total_seconds()),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def kept_log_in(request: Request, *, secure: bool) -> str | None:
    """Return what a browser has kept of a log-in at the issuer that it has begun."""
    return request.cookies.get(_SECURE_LOG_IN if secure else _LOG_IN)


def keep_log_in(response: Response, kept: str, *, secure: bool) -> None:
    """Let the browser keep this until it comes back from the issuer, which is another site: so it is not strict."""
    response.set_cookie(
        _SECURE_LOG_IN if secure else _LOG_IN,
        kept,
        max_age=int(LONGEST_LOG_IN_S),
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def clear_log_in(response: Response, *, secure: bool) -> None:
    """Let the browser forget a log-in at the issuer: its answer counts once."""
    name = _SECURE_LOG_IN if secure else _LOG_IN
    response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")


def clear_cookie(request: Request, response: Response) -> None:
    """Let the browser forget the secret of a session."""
    for name in (_COOKIE, _SECURE_COOKIE):
        if name in request.cookies:
            secure = name == _SECURE_COOKIE
            response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")


def csrf_token(secret: str) -> str:
    """Return what a form of this session must have in it: another site can send a form, but not read this."""
    return hmac.new(secret.encode(errors="surrogateescape"), b"acm form", hashlib.sha256).hexdigest()


def refuse_without_token(secret: str, token: str) -> None:
    """Raise Forbidden unless a form has the token of its session."""
    if not hmac.compare_digest(csrf_token(secret), token.encode("ascii", "replace").decode()):
        raise Forbidden("The form is of another session: load the page again.", code="foreign_form")


def refuse_foreign(request: Request) -> None:
    """Raise Forbidden unless a form was sent by a page of this origin, as the browser says."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    is_same_host = origin is None or origin.partition("://")[2] == request.headers.get("Host")
    if site not in (None, "same-origin") or not is_same_host or (site is None and origin is None):
        raise Forbidden("The form was sent by a page of another site.", code="foreign_form")


def local_path(text: str) -> str:
    """Return a path of this page to go to after logging in; the start page for everything else."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if is_local else "/"


def is_secure(request: Request) -> bool:
    """Whether the browser has a connection with TLS, also to a proxy before us: the form's origin has it."""
    return request.url.scheme == "https" or request.headers.get("Origin", "").startswith("https://")
