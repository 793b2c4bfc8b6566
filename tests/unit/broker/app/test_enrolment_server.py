"""The settings with which the enrolment server refuses to start."""

import socket
from pathlib import Path
from typing import Any

import pytest

from broker.app.config import ServerConfigurationError, load_config
from broker.app.enrolment_server import EnrolmentServer
from broker.enrolment.https import HttpsServer, HttpsServerError
from broker.pki.authority import CertificateAuthority, create_authority
from tests.support.errors import raises_code
from tests.support.makers import NOW


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({}, "missing_enroll_broker"),
        ({"enroll_broker": "http://mqtt"}, "invalid_url"),
        ({"enroll_broker": "mqtt://a:b@mqtt"}, "password_in_enroll_broker"),
        ({"certificate_lifetime": "soon"}, "bad_certificate_lifetime"),
        ({"renewal_grace": "long"}, "bad_renewal_grace"),
        ({"certificate_lifetime": "400d"}, "certificate_lifetime_too_long"),
        ({"enroll_listen": "8443"}, "bad_listen_address"),
        ({"enroll_listen": "localhost"}, "bad_listen_address"),
        ({"enroll_listen": "localhost:99999"}, "bad_listen_address"),
    ],
)
def test_bad_setting_of_the_enrolment_server_is_refused(tmp_path: Path, settings: dict[str, Any], code: str) -> None:
    flags = {"enroll_broker": "mqtt://mqtt", "ca": str(tmp_path), **settings} if settings else {}
    with raises_code(ServerConfigurationError, code):
        EnrolmentServer(load_config(None, flags, {}))


def test_address_that_is_in_use_is_reported(tmp_path: Path) -> None:
    create_authority(tmp_path / "ca", "test", NOW)
    authority = CertificateAuthority(tmp_path / "ca", now=lambda: NOW)
    authority.write_client_certificate("localhost", tmp_path, "localhost")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = other.getsockname()
        server = HttpsServer(None, address, tmp_path / "localhost.crt", tmp_path / "localhost.key")
        with raises_code(HttpsServerError, "cannot_listen") as caught:
            server.listen()
    assert f"127.0.0.1:{address[1]}" in str(caught.value)
