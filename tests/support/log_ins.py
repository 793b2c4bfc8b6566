"""An API whose page has people log in at an issuer that runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from broker.access.oidc.issuer_keys import IssuerKeys
from broker.access.oidc.issuer_tokens import IssuerTokens
from broker.access.oidc.log_in import IssuerLogIn
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, running_api
from tests.support.brokers import free_port
from tests.support.fakes.clock import TurnedClock
from tests.support.issuer import CLIENT_SECRET, Issuer

__all__ = ["api_with_issuer"]


@contextmanager
def api_with_issuer(
    issuer: Issuer, ledger: Ledger, clock: TurnedClock, *, secret: str | None = CLIENT_SECRET
) -> Iterator[RunningApi]:
    """Serve the API of a ledger, which trusts an issuer."""
    port = free_port()
    settings, client = issuer.settings, issuer.log_in_settings(f"http://127.0.0.1:{port}/")
    keys = IssuerKeys(settings.issuer, clock.monotonic)
    clocks = {"now": clock.now, "monotonic": clock.monotonic}
    log_in = IssuerLogIn(settings, client, secret, keys, **clocks)
    with running_api(ledger, clock, foreign=IssuerTokens(settings, keys), log_in=log_in, port=port) as api:
        yield api
