"""Addresses to listen on."""

import pytest

from broker.web.addresses import host_and_port, is_loopback, listen_at
from broker.web.errors import WebServerError
from tests.support.errors import raises_code


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("0.0.0.0:8443", ("0.0.0.0", 8443)),
        ("[::]:8443", ("::", 8443)),
        ("localhost:1", ("localhost", 1)),
        ("8443", None),
        ("localhost", None),
        (":8443", None),
        ("localhost:99999", None),
        ("[::1:8443", None),
    ],
)
def test_address_has_a_host_and_a_port(listen: str, address: tuple[str, int] | None) -> None:
    assert host_and_port(listen) == address


def test_only_addresses_of_this_machine_are_loopback() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "::", "example.org")] == [
        *(True, True, True),
        *(False, False),
    ]


def test_address_in_use_is_an_error() -> None:
    with listen_at(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        with raises_code(WebServerError, "cannot_listen") as caught:
            listen_at((host, port))
    assert f"{host}:{port}" in str(caught.value)
