"""The issuer that an API trusts, as its configuration names it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic

from broker.access.authentication import ForeignTokens
from broker.access.foreign_log_in import ForeignLogIn
from broker.app.config import ServerConfig, ServerConfigurationError
from broker.system.permissions import refuse_readable
from broker.system.text_files import NotText, read_text

__all__ = [
    "ConfiguredIssuer",
    "configured_issuer",
]


@dataclass(frozen=True)
class ConfiguredIssuer:
    """What is taken from an issuer: tokens for the API, and log-ins to the page."""

    tokens: ForeignTokens | None = None
    log_in: ForeignLogIn | None = None


def configured_issuer(config: ServerConfig, now: Callable[[], datetime]) -> ConfiguredIssuer:
    """Return what the configuration takes; nothing is asked of the issuer yet.

    Raises ServerConfigurationError, and ExposedFileError for a secret that others can read.
    """
    settings = config.api_oidc
    if settings is None:
        return ConfiguredIssuer()
    from broker.access.oidc.issuer_keys import IssuerKeys  # and PyJWT, which others do without
    from broker.access.oidc.issuer_tokens import IssuerTokens
    from broker.access.oidc.log_in import IssuerLogIn

    keys = IssuerKeys(settings.issuer, monotonic)
    tokens, client = IssuerTokens(settings, keys), settings.log_in
    if client is None:
        return ConfiguredIssuer(tokens)
    secret = None if client.client_secret_file is None else _secret_in(Path(client.client_secret_file))
    return ConfiguredIssuer(tokens, IssuerLogIn(settings, client, secret, keys, now=now, monotonic=monotonic))


def _secret_in(path: Path) -> str:
    try:
        refuse_readable(path)
        secret = read_text(path).strip()
    except (OSError, NotText) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ServerConfigurationError(
            f"client_secret_file: {path} cannot be read: {reason}.", code="unreadable_client_secret"
        ) from error
    if not secret:
        raise ServerConfigurationError(
            f"client_secret_file: {path} is empty: put the secret of the client there, or leave the setting out.",
            code="empty_client_secret",
        )
    return secret
