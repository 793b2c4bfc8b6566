"""Finds out whether the broker accepts certificates of the authority's successor, before agents get any."""

from collections.abc import Callable
from datetime import timedelta

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.enrolment.mqtt_takeover import Takeover, TakeoverError, TakeoverRefused, take_over
from broker.mqtt.address import BrokerAddress
from broker.pki.authority import CertificateAuthority
from broker.pki.certificates import CANARY

__all__ = [
    "SuccessorProbe",
    "check_successor",
]


_LIFETIME = timedelta(minutes=10)
_INTERVAL_S = 10.0
_log = structlog.get_logger("acm.enrolment")


def check_successor(
    authority: CertificateAuthority, broker: BrokerAddress, trusted: str, take_over: Takeover = take_over
) -> None:
    """Connect to the broker with a certificate of the successor, in a name that no agent has.

    The broker's own certificate must be of one of the authorities `trusted` (PEM). Raises TakeoverError or
    TakeoverRefused if the broker does not accept it, or is not trusted.
    """
    key = Ed25519PrivateKey.generate()
    canary = authority.issue_canary(key.public_key(), _LIFETIME, by_successor=True)
    take_over(broker, trusted, canary, key, CANARY)


class SuccessorProbe:
    """Knows whether the broker accepts the successor. Driven by calls of `step`; `broker` is None without TLS."""

    def __init__(
        self,
        authority: CertificateAuthority,
        broker: BrokerAddress | None,
        *,
        monotonic: Callable[[], float],
        take_over: Takeover = take_over,
    ) -> None:
        self._authority = authority
        self._broker = broker
        self._monotonic = monotonic
        self._take_over = take_over
        self._accepted: str | None = None
        self._is_logged = False
        self._try_at = monotonic()

    def accepted(self) -> bool:
        """Return whether agents can connect with a certificate of the successor; any thread may call it."""
        return self._broker is None or self._accepted == self._authority.successor

    def step(self) -> None:
        """Try it if there is a successor that was not accepted yet, and the last attempt was some seconds ago."""
        successor = self._authority.successor
        if successor is None or self._broker is None or self.accepted() or self._monotonic() < self._try_at:
            return
        self._try_at = self._monotonic() + _INTERVAL_S
        try:
            check_successor(self._authority, self._broker, self._authority.trusted, self._take_over)
        except (TakeoverError, TakeoverRefused) as error:
            if not self._is_logged:
                self._is_logged = True
                _log.warning("successor_not_accepted", code=error.code, reason=str(error))
        else:
            self._accepted, self._is_logged = successor, False
            _log.info("successor_accepted")
