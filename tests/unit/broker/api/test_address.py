"""The address that the API listens on."""

import pytest

from broker.api.address import ApiAddressError, api_address
from tests.support.errors import raises_code


@pytest.mark.parametrize("listen", ["0.0.0.0:8444", "192.0.2.1:8444", "[::]:8444", "example.org:8444"])
def test_address_that_others_could_reach_is_refused_without_tls(listen: str) -> None:
    with raises_code(ApiAddressError, "not_loopback"):
        api_address(listen, has_tls=False)
    assert api_address(listen, has_tls=True)[1] == 8444


@pytest.mark.parametrize("listen", ["8444", "127.0.0.1", "127.0.0.1:x", ":8444", "[::1:8444"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with raises_code(ApiAddressError, "bad_listen_address"):
        api_address(listen, has_tls=True)


def test_name_of_this_machine_is_an_address_of_it() -> None:
    assert api_address("localhost:1", has_tls=False) == ("127.0.0.1", 1)
    assert api_address("[::1]:1", has_tls=False) == ("::1", 1)
