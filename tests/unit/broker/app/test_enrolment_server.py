"""What the enrolment server refuses to start with."""

from pathlib import Path
from typing import Any

import pytest

from broker.app.config import ConfigurationError, load_config
from broker.app.enrolment_server import EnrolmentServer


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "--broker or enroll_broker"),
        ({"enroll_broker": "http://mqtt"}, "must look like mqtt://HOST:PORT"),
        ({"enroll_broker": "mqtt://a:b@mqtt"}, "must hold no password"),
        ({"certificate_lifetime": "soon"}, "certificate_lifetime: 'soon' is not a duration"),
        ({"certificate_lifetime": "400d"}, "certificate_lifetime: at most 366d"),
        ({"enroll_listen": "8443"}, "is not HOST:PORT"),
        ({"enroll_listen": "localhost"}, "is not HOST:PORT"),
        ({"enroll_listen": "localhost:99999"}, "is not HOST:PORT"),
    ],
)
def test_a_bad_configuration_is_one_sentence(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    flags = {"enroll_broker": "mqtt://mqtt", "ca": str(tmp_path), **settings} if settings else {}
    with pytest.raises(ConfigurationError) as caught:
        EnrolmentServer(load_config(None, flags, {}))
    assert said in str(caught.value)
