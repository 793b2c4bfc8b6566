"""A takeover at a broker that cannot be reached."""

import socket
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.enrolment.mqtt_takeover import TakeoverError, take_over
from broker.mqtt.address import parse_url
from broker.pki.authority import CertificateAuthority, create_authority
from tests.support.errors import raises_code
from tests.support.makers import NOW


def test_takeover_at_a_port_that_nobody_listens_on_is_reported(tmp_path: Path) -> None:
    create_authority(tmp_path / "ca", "test", NOW)
    authority = CertificateAuthority(tmp_path / "ca", now=lambda: NOW)
    key = Ed25519PrivateKey.generate()
    certificate = authority.issue("web-01", key.public_key(), timedelta(days=1))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = parse_url(f"mqtts://127.0.0.1:{bound.getsockname()[1]}")
        with raises_code(TakeoverError, "broker_unreachable"):
            take_over(address, authority.certificate, certificate, key, "web-01")
