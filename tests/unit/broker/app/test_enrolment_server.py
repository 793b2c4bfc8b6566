"""The settings with which the enrolment server refuses to start."""

from pathlib import Path
from typing import Any

import pytest

from broker.app.config import ServerConfigurationError, load_config
from broker.app.enrolment_server import EnrolmentServer
from tests.support.errors import raises_code


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
