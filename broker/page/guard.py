"""What keeps others out: the cookie of a session, and the checks that a form was sent by a page of ours."""

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from broker.access.sessions import LONGEST_SESSION
from broker.api.problems import Forbidden

__all__ = [
    "clear_cookie",
    "csrf_token",
    "local_path",
    "refuse_foreign",
    "refuse_without_token",
    "secret_in",
    "set_cookie",
]


_COOKIE, _SECURE_COOKIE = "acm-session", "__Host-acm-session"


def secret_in(request: Request) -> str | None:
    """Return the secret of the session that a request has in its cookie; over TLS, only one that was set over TLS."""
    secret = request.cookies.get(_SECURE_COOKIE)
    return secret if secret or request.url.scheme == "https" else request.cookies.get(_COOKIE)


def set_cookie(request: Request, response: Response, secret: str) -> None:
    """Let the browser keep the secret of a session, where no script can read it."""
    is_secure = _is_secure(request)
    response.set_cookie(
        _SECURE_COOKIE if is_secure else _COOKIE,
        secret,
        max_age=int(LONGEST_SESSION.total_seconds()),
        path="/",
        secure=is_secure,
        httponly=True,
        samesite="strict",
    )


def clear_cookie(request: Request, response: Response) -> None:
    """Let the browser forget the secret of a session."""
    for name in (_COOKIE, _SECURE_COOKIE):
        if name in request.cookies:
            is_secure = name == _SECURE_COOKIE
            response.delete_cookie(name, path="/", secure=is_secure, httponly=True, samesite="strict")


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
    is_same_host = origin is None or urlsplit(origin).netloc == request.headers.get("Host")
    if site not in (None, "same-origin") or not is_same_host or (site is None and origin is None):
        raise Forbidden("The form was sent by a page of another site.", code="foreign_form")


def local_path(text: str) -> str:
    """Return a path of this page to go to after logging in; the start page for everything else."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if is_local else "/"


def _is_secure(request: Request) -> bool:
    """Whether the browser has a connection with TLS, also to a proxy before us: the form's origin has it."""
    return request.url.scheme == "https" or request.headers.get("Origin", "").startswith("https://")
