"""The settings of an issuer. Imports no PyJWT: the configuration of every command has them."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from broker.errors import InvalidArgument
from broker.fleet.models import Role
from broker.text import toml_string
from broker.web.addresses import is_loopback

__all__ = [
    "Claim",
    "LogInSettings",
    "OidcSettings",
    "is_safe_url",
]


Claim = str | tuple[str, ...]
"""The name of a claim; or, within nested objects, one name for each level."""


class LogInSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How people log in to the page at the issuer, which knows it as the client `client_id`.

    `page_url` is where browsers reach the page; the issuer must have `page_url` with `/login/callback` as an address to
    return to. `client_secret_file` has the secret of a client that is not a public one.
    """

    client_id: str
    page_url: str
    client_secret_file: str | None = None
    scopes: tuple[str, ...] = ("openid",)

    def check(self) -> None:
        """Raise InvalidArgument for settings that cannot be used."""
        if not is_safe_url(self.page_url) or urlsplit(self.page_url).path not in ("", "/"):
            raise InvalidArgument(
                f"page_url: {self.page_url[:80]!r} is not where a page can be: it begins with https://, or with "
                "http:// and a loopback address, and has no path.",
                code="bad_page_url",
            )
        if not self.client_id or "openid" not in self.scopes:
            raise InvalidArgument(
                "client_id must not be empty, and scopes must have openid: without it, the issuer does not tell who "
                "logs in.",
                code="incomplete_log_in",
            )

    def lines(self) -> Iterator[str]:
        """Yield the lines of the settings in a configuration file."""
        yield "[api_oidc.log_in]"
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None:
                yield f"{name} = {_toml(value)}"


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which tokens are taken, and what their claims mean here.

    `roles` has the role of each value of `role_claim`; the highest one counts. With `groups_claim`, a principal is for
    the agents in these groups only. With `log_in`, people log in to the page at the issuer.
    """

    issuer: str
    audience: str
    roles: dict[str, Role]
    role_claim: Claim = "roles"
    groups_claim: Claim | None = None
    log_in: LogInSettings | None = None

    def check(self) -> None:
        """Raise InvalidArgument for settings that cannot be used."""
        if not is_safe_url(self.issuer):
            raise InvalidArgument(
                f"issuer: {self.issuer[:80]!r} is not the URL of an issuer: it begins with https://, or with http:// "
                "and a loopback address, and has neither a query nor a fragment.",
                code="bad_issuer",
            )
        if not self.audience or not self.roles:
            raise InvalidArgument(
                "audience and roles must not be empty: without them, no token would be for this API.",
                code="incomplete_issuer",
            )
        if self.log_in is not None:
            self.log_in.check()

    def toml(self) -> str:
        """Return the settings as the section [api_oidc] of a configuration file."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield "[api_oidc]"
        for name in ("issuer", "audience", "role_claim", "groups_claim"):
            value = getattr(self, name)
            if value is not None:
                yield f"{name} = {_toml(value)}"
        yield "[api_oidc.roles]"
        for value, role in self.roles.items():
            yield f"{toml_string(value)} = {toml_string(role)}"
        if self.log_in is not None:
            yield from self.log_in.lines()


def is_safe_url(url: str) -> bool:
    """Whether a URL is of a server that cannot be taken for another one on the way."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    is_protected = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    return is_protected and bool(host) and not (parts.query or parts.fragment)


def _toml(value: Claim) -> str:
    return toml_string(value) if isinstance(value, str) else f"[{', '.join(map(toml_string, value))}]"
