"""Both authorities of a rollover on a real Mosquitto, which reloads its files: their certificates and revocations."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.app.broker_directory import write_trusted
from broker.enrolment.mqtt_takeover import TakeoverError, TakeoverRefused, take_over
from broker.enrolment.successor_probe import SuccessorProbe
from broker.mosquitto.process import SecuredMosquitto
from broker.mqtt.address import parse_url
from tests.support.enrolling import HOUR
from tests.support.fakes.clock import TurnedClock
from tests.support.secured import SecuredSite
from tests.support.waiting import wait_for

# A failed handshake leaves its socket to the collector, which warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
Identity = tuple[x509.Certificate, Ed25519PrivateKey]


class TwoAuthorities:
    """A running broker of an authority whose successor has been created."""

    def __init__(self, site: SecuredSite, mosquitto: SecuredMosquitto) -> None:
        self.site, self.mosquitto, self.authority = site, mosquitto, site.authority
        self.broker = parse_url(site.url)

    def identity(self, agent: str, *, by_successor: bool) -> Identity:
        key = Ed25519PrivateKey.generate()
        return self.authority.issue(agent, key.public_key(), HOUR, by_successor=by_successor), key

    def outcome(self, agent: str, identity: Identity) -> str:
        """Return whether the broker accepts it, refuses it as revoked, or as that of a stranger."""
        try:
            take_over(self.broker, self.authority.trusted, *identity, agent)
        except TakeoverRefused:
            return "revoked"
        except TakeoverError:
            return "unknown"
        return "accepted"

    def trust_both(self) -> None:
        self.site.revoke()
        assert write_trusted(self.site.server.ca, self.authority.trusted)
        assert self.mosquitto.reload_when_changed()


def test_certificates_and_revocations_of_both_authorities_work_side_by_side(tmp_path: Path) -> None:
    site, clock = SecuredSite(tmp_path), TurnedClock()
    with SecuredMosquitto(site.directory) as mosquitto:
        two = TwoAuthorities(site, mosquitto)
        site.authority.begin_rollover()
        probe = SuccessorProbe(site.authority, two.broker, monotonic=clock.monotonic)
        old = {name: two.identity(name, by_successor=False) for name in ("web-01", "web-02")}
        new = {name: two.identity(name, by_successor=True) for name in ("web-03", "web-04")}
        probe.step()
        assert not probe.accepted()
        assert [two.outcome("web-01", old["web-01"]), two.outcome("web-03", new["web-03"])] == ["accepted", "unknown"]
        two.trust_both()
        wait_for(lambda: two.outcome("web-03", new["web-03"]) == "accepted", "the broker to trust the successor")
        assert two.outcome("web-01", old["web-01"]) == "accepted"
        clock.turn(60)
        probe.step()
        assert probe.accepted()
        revoked = [site.save(*identity) for identity in (old["web-01"], new["web-03"])]
        site.revoke(*revoked)
        assert mosquitto.reload_when_changed()
        wait_for(lambda: two.outcome("web-03", new["web-03"]) == "revoked", "the broker to read both lists")
        assert two.outcome("web-01", old["web-01"]) == "revoked"
        assert two.outcome("web-02", old["web-02"]) == two.outcome("web-04", new["web-04"]) == "accepted"
